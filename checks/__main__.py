"""Write what is generated from the catalogue: `python -m checks`."""

from pathlib import Path

from checks.documentation import generated

if __name__ == "__main__":
    for path, text in generated().items():
        target = Path(__file__).parents[1] / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
