"""Virtual machines: the one that holds a tunnel, and any that may be added."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policy.rule import Resource, rule
from infra.policy.values import UNKNOWN, differs, get, items, missing

INSTANCE, TEMPLATE = "aws:ec2/instance:Instance", "aws:ec2/launchTemplate:LaunchTemplate"
_OLD = "aws:ec2/launchConfiguration:LaunchConfiguration"
_YES = (True, "true")


def _from_template(machine: Resource) -> bool:
    """Whether the settings that it does not have are a launch template's, which is judged too."""
    return machine.kind == INSTANCE and not missing(machine.get("launchTemplate"))


@rule("machine-metadata-v2", INSTANCE, TEMPLATE, _OLD)
def metadata(machine: Resource) -> Iterator[str]:
    """A machine's credentials are given out by IMDSv2 only, to the machine and not to containers.

    Source: FSBP EC2.8 and EC2.170; EKS Best Practices Guide, Identity and Access Management.
    """
    options = machine.get("metadataOptions")
    if missing(options) and _from_template(machine):
        return
    if differs(get(options, "httpTokens"), "required"):
        yield "metadataOptions.httpTokens is not required; set it"
    if differs(get(options, "httpPutResponseHopLimit"), 1):
        yield "metadataOptions.httpPutResponseHopLimit is not 1; set it"


@rule("machine-no-public-address", INSTANCE, TEMPLATE, _OLD)
def address(machine: Resource) -> Iterator[str]:
    """No machine has a public address.

    Source: FSBP EC2.9 and EC2.25.
    """
    interfaces = items(machine.get("networkInterfaces"))
    for value in (
        machine.get("associatePublicIpAddress"),
        *(get(one, "associatePublicIpAddress") for one in interfaces),
    ):
        if value in _YES:
            yield "associatePublicIpAddress is true; set it to false"


@rule("machine-disks-encrypted", INSTANCE, TEMPLATE, _OLD)
def disks(machine: Resource) -> Iterator[str]:
    """A machine's disks are encrypted, the one it starts from above all.

    Source: FSBP EC2.3 and EC2.181.
    """
    if machine.kind == TEMPLATE:
        mappings = machine.get("blockDeviceMappings")
        if missing(mappings):
            yield "blockDeviceMappings is missing; give the root disk with ebs.encrypted"
        for mapping in items(mappings):
            if differs(get(mapping, "ebs", "encrypted"), *_YES):
                yield f"the disk {get(mapping, 'deviceName')} is not encrypted; set ebs.encrypted"
        return
    root = machine.get("rootBlockDevice")
    if not (missing(root) and _from_template(machine)) and differs(get(root, "encrypted"), True):
        yield "rootBlockDevice.encrypted is not true; set it"
    for disk in items(machine.get("ebsBlockDevices")):
        if differs(get(disk, "encrypted"), True):
            yield f"the disk {get(disk, 'deviceName')} is not encrypted; set encrypted"


@rule("machine-no-ssh", INSTANCE, TEMPLATE, _OLD)
def ssh(machine: Resource) -> Iterator[str]:
    """Nobody has an SSH key to a machine: Session Manager asks IAM, and logs.

    Source: AWS Well-Architected, SEC06-BP03 (reduce manual management and interactive access).
    """
    key = machine.get("keyName")
    if key is not UNKNOWN and not missing(key):
        yield f"keyName is {key}; remove it, and use Session Manager"
