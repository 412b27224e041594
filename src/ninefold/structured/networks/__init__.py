"""Networks with a label for every pixel, each a module made of this library's layers."""
