"""Training of the models that fewstep ships, and of yours."""
