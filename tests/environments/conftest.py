from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401

collect_ignore = ["openenv_server.py"]  # a program of its own, for which not all that it imports is there
