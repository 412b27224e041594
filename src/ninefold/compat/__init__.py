"""Old packages' call surfaces on this library's functions."""
