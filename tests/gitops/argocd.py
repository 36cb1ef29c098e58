"""Runs the scripts of gitops/argocd as Argo CD does: Lua 5.1 that has the base library and os.date, nothing else."""

from pathlib import Path

from lupa.lua51 import LuaRuntime

MODEL = Path(__file__).parents[2] / "gitops/argocd/deepseek-operator.io/DeepSeekModel"


def to_lua(lua, value):
    if isinstance(value, dict):
        return lua.table_from({key: to_lua(lua, one) for key, one in value.items()})
    if isinstance(value, list):
        return lua.table_from([to_lua(lua, one) for one in value])
    return value


def to_python(value):
    if not hasattr(value, "items"):
        return value
    pairs = {key: to_python(one) for key, one in value.items()}
    if pairs and set(pairs) == set(range(1, len(pairs) + 1)):
        return [pairs[i] for i in range(1, len(pairs) + 1)]
    return pairs


def run(script: Path, obj: dict):
    """What a script answers about an object."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.execute("""
        local date = os.date
        for _, name in ipairs{'io', 'os', 'package', 'debug', 'string', 'table', 'math', 'dofile', 'loadfile'} do
          _G[name] = nil
        end
        require = function(name) assert(name == 'os'); return {date = date} end
    """)
    lua.globals().obj = to_lua(lua, obj)
    return to_python(lua.execute(script.read_text()))
