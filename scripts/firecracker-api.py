#!/usr/bin/env python3
"""Extracts the facts of Firecracker's API description that the driver's types are held against.

    scripts/firecracker-api.py path/to/firecracker.yaml > adapters/flames-vmm-firecracker/api/facts.json

The description is src/firecracker/swagger/firecracker.yaml of a Firecracker release. Needs PyYAML.
"""

import json
import sys

import yaml


def reference(schema):
    return schema["$ref"].rsplit("/", 1)[-1] if "$ref" in schema else None


def kind(schema):
    """`integer`, `string`, ..., the name of another definition, or a list of one of these."""
    if schema.get("type") == "array":
        return [kind(schema["items"])]
    return reference(schema) or schema.get("type", "object")


def legal(schema):
    """The legal values. YAML reads a bare Off as false."""
    return sorted("Off" if value is False else value for value in schema["enum"])


def field(schema):
    facts = {"type": kind(schema)}
    if "enum" in schema:
        facts["enum"] = legal(schema)
    return facts


def definition(schema):
    if "enum" in schema:
        return {"enum": legal(schema)}
    fields = {name: field(part) for name, part in sorted(schema.get("properties", {}).items())}
    return {"fields": fields, "required": sorted(schema.get("required", []))}


def body(operation):
    found = [p["schema"] for p in operation.get("parameters", []) if p.get("in") == "body"]
    return reference(found[0]) if found else None


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        description = yaml.safe_load(file)
    facts = {
        "version": description["info"]["version"],
        "requests": {
            f"{method.upper()} {path}": body(operation)
            for path, methods in sorted(description["paths"].items())
            for method, operation in sorted(methods.items())
        },
        "definitions": {name: definition(s) for name, s in sorted(description["definitions"].items())},
    }
    # One definition or request a line: a small diff when a release changes something.
    print("{")
    print(f' "version": {json.dumps(facts["version"])},')
    for part in ("requests", "definitions"):
        lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in facts[part].items()]
        print(f' "{part}": {{\n' + ",\n".join(lines) + "\n }" + ("," if part == "requests" else ""))
    print("}")


if __name__ == "__main__":
    main()
