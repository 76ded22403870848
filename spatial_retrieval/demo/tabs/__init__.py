"""The page's tabs; each builds its components and wires its events."""
