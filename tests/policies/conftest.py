from ..engine_fixtures import load_policy, tiny_model_directory  # noqa: F401
