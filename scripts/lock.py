"""Print every installed package with its version: the content of constraints.txt."""

from importlib.metadata import distributions

LOCAL = {"fedge", "pip", "setuptools"}

print("# Every package of Fedge and its development extras, as tested together. Written by `make lock`.")
print("# A version that has a local part (torch's +cpu) is written without it, so that any build of it fits.")
versions = {
    (d.metadata["Name"] or "").lower().replace("_", "-").replace(".", "-"): d.version.partition("+")[0]
    for d in distributions()
}
for name in sorted(versions.keys() - LOCAL):
    print(f"{name}=={versions[name]}")
