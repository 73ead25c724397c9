"""A search for good values of configuration keys: many trainings, each a run of its own, with values that Optuna suggests."""
