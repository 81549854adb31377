from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401

collect_ignore = ["openenv_server.py", "verifiers_suite"]  # programs of their own, whose imports are not all there
