"""Where in each answer the object is: LOST inside one image, and seeds carried over from a query."""
