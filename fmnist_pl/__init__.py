"""Fashion-MNIST CNN variants. Importing this package imports neither torch nor Lightning."""
