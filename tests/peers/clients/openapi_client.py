"""Reads a description of an API as others do.

Usage: target/peers/openapi/bin/python tests/peers/clients/openapi_client.py validate FILE
       ... call FILE --target FOLDER --url URL [--key KEY] --calls '[["operation", {...}], ...]'

`validate` judges it with openapi-spec-validator. `call` generates a client with
openapi-python-client, imports it and calls operations by their ids.
"""

import argparse
import importlib
import json
import pathlib
import subprocess
import sys
import typing

from lines import say


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["validate", "call"])
    parser.add_argument("file")
    parser.add_argument("--target")
    parser.add_argument("--url")
    parser.add_argument("--key")
    parser.add_argument("--calls", type=json.loads, default=[])
    arguments = parser.parse_args()
    if arguments.what == "validate":
        validate(arguments.file)
    else:
        call(arguments)


def validate(file):
    from openapi_spec_validator import OpenAPIV31SpecValidator

    document = json.loads(pathlib.Path(file).read_text())
    errors = [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in OpenAPIV31SpecValidator(document).iter_errors()]
    say("validated", errors=errors)
    if errors:
        raise ValueError("; ".join(errors[:5]))


def call(arguments):
    target = pathlib.Path(arguments.target)
    target.mkdir(parents=True)
    config = target / "config.yml"
    # Formatting the generated code is of no use here.
    config.write_text("post_hooks: []\npackage_name_override: generated\n")
    generator = pathlib.Path(sys.executable).parent / "openapi-python-client"
    command = [generator, "generate", "--path", arguments.file, "--config", config, "--meta", "none", "--output-path", target / "generated"]
    made = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    say("generated", code=made.returncode, output=made.stdout + made.stderr)
    if made.returncode != 0 or "WARNING" in made.stdout + made.stderr:
        raise ValueError(made.stdout + made.stderr)
    sys.path.insert(0, str(target))
    package = importlib.import_module("generated")
    options = {"base_url": arguments.url, "raise_on_unexpected_status": True}
    client = package.AuthenticatedClient(token=arguments.key, **options) if arguments.key else package.Client(**options)
    for operation, body in arguments.calls:
        module = importlib.import_module(f"generated.api.default.{operation}")
        response = module.sync_detailed(client=client, body=body_model(module).from_dict(body))
        say("answer", operation=operation, status=int(response.status_code), body=response.parsed.to_dict())


def body_model(module):
    """The class that was generated for the body of an operation."""
    hint = typing.get_type_hints(module.sync_detailed)["body"]
    return next(kind for kind in (typing.get_args(hint) or (hint,)) if hasattr(kind, "from_dict"))


try:
    main()
except Exception as error:
    say("error", message=f"{type(error).__name__}: {error}")
    sys.exit(1)
