"""Our code on a node: it connects to a server and trains when asked."""
