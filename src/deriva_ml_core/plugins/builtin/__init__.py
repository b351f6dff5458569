"""Our own answers to hooks; nobody imports them, `deriva_ml_core.plugins` names them."""
