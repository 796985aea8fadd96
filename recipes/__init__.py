"""The application: one recipe per script, and the only place that knows Hydra."""
