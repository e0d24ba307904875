"""From the engine's predictions to results that are logged and delivered."""
