import importlib.util
__path__ = importlib.util.find_spec("neural_tangents").submodule_search_locations
