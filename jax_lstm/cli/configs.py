"""Find the experiment configs that come with the package.

A wheel has them in jax_lstm/configs. A checkout, and so an editable install, has them in configs/, beside jax_lstm/.
"""

import os.path
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def configs_dir() -> Path:
    """The folder of the packaged configs."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def find_config(name: str) -> Path:
    """The file at path `name` if there is one, else the packaged config of that name, such as digits.yaml.

    Raises:
        ValueError: neither exists; the message lists the packaged names.
    """
    if os.path.exists(name):  # also False for what cannot be a path, such as a name that is too long
        return Path(name)
    names = sorted(path.name for path in configs_dir().glob("*.yaml"))
    if name in names:
        return configs_dir() / name
    raise ValueError(
        f"config: wanted a file, or the name of a packaged config ({', '.join(names)}), but {name} does not exist"
    )
