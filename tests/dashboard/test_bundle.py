"""The bundler takes what our modules are written in, and refuses the rest."""

import pytest

from apt_model.dashboard.bundle import bundle

MODULES = {
    "main.js": 'import {two} from "./two.js";\nimport {one, once} from "./one.js";\nconsole.log(one, once(), two);\n',
    "one.js": "export const one = 1;\nexport function once() { return one; }\n",
    "two.js": 'import {one} from "./one.js";\nexport async function two() { return one + 1; }\nclass Own {}\n',
}


def test_what_is_imported_comes_first_and_once_without_import_and_export() -> None:
    script = bundle(MODULES, "main.js")
    assert [script.index(f"// {name}.js") for name in ("one", "two", "main")] == sorted(
        script.index(f"// {name}.js") for name in ("one", "two", "main")
    )
    assert script.count("const one = 1;") == 1
    assert "import" not in script
    assert "export" not in script
    assert script.startswith('(() => {\n"use strict";\n')
    assert script.endswith("})();\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"one.js": 'import {two} from "./two.js";\nexport const one = 1;'}, "cannot import"),
        ({"two.js": 'import {x} from "./three.js";'}, "two.js: cannot import three.js"),
        ({"two.js": 'import * as x from "./one.js";'}, "syntax that the bundle does not support"),
        ({"two.js": "export default 3;"}, "syntax that the bundle does not support"),
        ({"two.js": 'const x = import("./one.js");'}, "syntax that the bundle does not support"),
        ({"two.js": 'import {\n  one\n} from "./one.js";'}, "syntax that the bundle does not support"),
        ({"two.js": "const one = 2;"}, "one.js: one is also a name in two.js"),
    ],
)  # fmt: skip
def test_what_it_cannot_bundle_it_refuses(change: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bundle(MODULES | change, "main.js")
