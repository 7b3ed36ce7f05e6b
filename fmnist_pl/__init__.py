"""Fashion-MNIST CNN variants. Importing this package is cheap: TensorBoard loads the plugin below it."""
