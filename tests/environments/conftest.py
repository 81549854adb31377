from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401
