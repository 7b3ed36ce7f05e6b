"""Finding, verifying, downloading, drawing and reading the images' files."""
