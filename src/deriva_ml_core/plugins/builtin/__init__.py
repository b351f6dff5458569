"""Built-in plugins; `deriva_ml_core.plugins` loads them by name, and no module imports them."""
