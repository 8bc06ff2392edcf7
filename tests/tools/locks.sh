#!/bin/sh
# Resolves the locks afresh from the package index: every pinned version of this project that pip installs.
set -eu
cd "$(dirname "$0")/../.."
vllm=$(sed -n 's/^DEFAULT_VERSION = "\(.*\)".*/\1/p' plugins/module_utils/_releases/versions.py)

compile() {
    # Universal: one file for every supported Python (3.11 and newer) and processor.
    .venv/bin/uv pip compile --quiet --no-header --no-annotate --universal --python-version 3.11 "$@"
}

dev=$(compile --generate-hashes requirements-dev.in)
{
    echo "# Locked from requirements-dev.in by tests/tools/locks.sh."
    echo "$dev"
} >requirements-dev.txt

# The controller needs these packages. No hash: ansible-builder merges this file with those of other collections.
{
    echo "# What a controller or an execution environment needs beside ansible-core; the versions of requirements-dev.txt."
    echo "$dev" | sed -n 's/^\(\(huggingface-hub\|nvidia-ml-py\)==[0-9.]*\).*/\1/p'
} >requirements.txt

{
    echo "# What installs the packages of vLLM on the hosts, where the index has it; the version of requirements-dev.txt."
    echo "# Locked by tests/tools/locks.sh."
    echo "$dev" | sed -n '/^uv==/,/[^\\]$/p'
} >roles/vllm/files/installer.lock

# vLLM 0.33.0 asks for certifi>=2026.10.19. On 2026-11-23 PyPI offered nothing newer than 2026.10.18, so that the release
# could not be resolved at all. The floor (not the version) is lowered here: as soon as PyPI has a newer one, it is taken.
override=$(mktemp)
trap 'rm -f "$override"' EXIT
echo "certifi>=2026.10.18" >"$override"
lock=$(printf 'vllm==%s\nray\n' "$vllm" | compile --generate-hashes --override "$override" -)
{
    echo "# vllm==$vllm and everything it needs, for Linux and CPython 3.11 to 3.14. The list is complete:"
    echo "#   pip install --require-hashes --no-deps -r <this file>"
    echo "# Locked by tests/tools/locks.sh. One requirement of vLLM is relaxed, knowingly: certifi>=2026.10.19, which PyPI did"
    echo "# not offer on 2026-11-23, to certifi>=2026.10.18."
    echo "# Ray is for instances over several hosts whose executor it is: all nodes have the same, beside the same vLLM. That is"
    echo "# 80 MB to download; a lock of its own would make a second environment of several GB where both are served."
    echo "$lock"
} >"roles/vllm/files/vllm-$vllm.lock"
