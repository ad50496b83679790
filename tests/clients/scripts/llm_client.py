"""llm, the command line: plain, in a conversation, a tool, a schema; and what it says of a model that there is not."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = """
- model_id: {name}
  model_name: {name}
  api_base: {url}/v1
  supports_tools: true
  supports_schema: true
"""
ROLL = "def roll(sides: int) -> str:\n    'Roll a die.'\n    return str(sides)\n"

with tempfile.TemporaryDirectory() as home:
    models = "".join(MODELS.format(name=name, url=os.environ["GATEHOUSE_URL"]) for name in ("gatehouse", "nobody"))
    (Path(home) / "extra-openai-models.yaml").write_text(models)
    environment = os.environ | {"LLM_USER_PATH": home, "OPENAI_API_KEY": "none"}

    def llm(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "llm", *arguments]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert ended.returncode == status, ended.stderr
        return (ended.stdout if status == 0 else ended.stderr).strip()

    assert llm("-m", "gatehouse", "hello") == "echo: hello"
    assert llm("-m", "gatehouse", "--continue", "and again") == "echo: and again"
    roll = '[[tool roll {"sides": 6}]] [[then]] [[say six it is]]'
    assert llm("-m", "gatehouse", "--functions", ROLL, roll) == "six it is"
    ann = '[[say {"name": "Ann", "age": 4}]]'
    assert llm("-m", "gatehouse", "--schema", "name, age int", ann) == '{"name": "Ann", "age": 4}'
    assert "there is no model 'nobody'" in llm("-m", "nobody", "hello", status=1)
