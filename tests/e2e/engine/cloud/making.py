"""Creating, changing, reading and deleting in the make-believe cloud. Part of a test double."""

from __future__ import annotations

import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from . import kinds_eks, kinds_link, kinds_network, kinds_services
from .kinds import Making, Refused, filled, kind_of, words
from .references import check_deletable, identifiers, mentions, texts
from .store import Properties, Row, Store, Transaction

GETTER = re.compile(r'@pulumi\.getter(?:\(name="(\w+)"\))?\n(?:    @.*\n)* +def (\w+)\(')
# Imported for the types that they know.
TABLES = (kinds_network, kinds_link, kinds_services, kinds_eks)


@dataclass(frozen=True)
class Order:
    """What is to happen to a resource, and where."""

    token: str
    urn: str
    account: str
    region: str
    inputs: Properties


def create(store: Store, order: Order) -> tuple[bool, Properties]:
    """Make a resource; its outputs, and whether the answer is to stay out."""
    with store.transaction() as cloud:
        fault, message = cloud.fault(order.token) or ("", "")
        error: Refused | None = None
        outputs: Properties = {}
        if fault == "fail":
            error = Refused(*message.split(": ", 1)) if ": " in message else Refused(message, "")
        elif fault != "hang":
            try:
                outputs = _create(cloud, order)
            except Refused as refused:
                error = refused
        hangs = fault.startswith("hang")
        outcome = str(error) if error else "hangs" if hangs else "ok"
        identity = outputs.get("id", "")
        cloud.log("create", order.token, identity, order.account, order.urn, outcome)
    if error:
        raise error
    return hangs, outputs


def _create(cloud: Transaction, order: Order) -> Properties:
    kind = kind_of(order.token, order.inputs)
    known = words(order.account, order.region, order.inputs, kind)
    making = Making(cloud, order.account, order.region, order.inputs, known)
    named = mentions(order.token, making)
    computed = kind.compute(making) if kind.compute else {}
    known |= {key: value for key, value in computed.items() if isinstance(value, str)}
    outputs = filled(dict(kind.outputs), known)
    if "{arn}" in kind.id and kind.arn:
        outputs["arn"] = known["arn"] = filled(kind.arn, known)
    outputs["id"] = known["id"] = computed.get("id") or filled(kind.id, known)
    if kind.arn and "arn" not in outputs:
        outputs["arn"] = filled(kind.arn, known)
    if kind.name:
        outputs[kind.name] = known["name"]
    outputs = order.inputs | {"region": order.region} | outputs | computed
    _check_free(cloud, order, outputs)
    # What it was told the name of is another resource: a topic's policy has no ARN of its own.
    names = identifiers(outputs, kind.also) - {text for _, text in texts(order.inputs)}
    place = (order.account, order.region)
    cloud.add(order.token, order.urn, *place, order.inputs, outputs, names, named)
    return outputs


def _check_free(cloud: Transaction, order: Order, outputs: Properties) -> None:
    """Names are taken: a bucket's in the whole world, others' in their account and Region."""
    taken = cloud.by_id(order.token, outputs["id"], order.account, order.region)
    arn = outputs.get("arn")
    if taken is None and arn is not None and "arn" not in order.inputs:
        taken = cloud.named(arn)
    if taken is None and order.token.startswith(("aws:lb/loadBalancer:", "aws:lb/targetGroup:")):
        where = "alive and type = ? and account = ? and region = ?"
        where += " and json_extract(inputs, '$.name') = ?"
        values = (order.token, order.account, order.region, order.inputs.get("name"))
        taken = next(iter(cloud.rows(where, values)), None)
    if taken is None and order.token.endswith(":PodIdentityAssociation"):
        keys = ("clusterName", "namespace", "serviceAccount")
        for row in cloud.rows("alive and type = ? and account = ?", (order.token, order.account)):
            if all(row.inputs[key] == order.inputs[key] for key in keys):
                taken = row
    if taken is not None:
        raise Refused("AlreadyExists", f"{order.token.rsplit(':', 1)[-1]} {outputs['id']}")


def update(store: Store, order: Order, identity: str) -> Properties:
    """Change a resource in place; its outputs."""
    with store.transaction() as cloud:
        row = cloud.by_id(order.token, identity, order.account, order.region)
        error: Refused | None = None
        outputs: Properties = {}
        if row is None:
            error = Refused("NotFound", f"{identity} does not exist")
        else:
            try:
                outputs = _update(cloud, order, row)
            except Refused as refused:
                error = refused
        outcome = str(error) if error else "ok"
        cloud.log("update", order.token, identity, order.account, order.urn, outcome)
    if error:
        raise error
    return outputs


def _update(cloud: Transaction, order: Order, row: Row) -> Properties:
    making = Making(cloud, order.account, order.region, order.inputs, {})
    named = mentions(order.token, making)
    made = {key: value for key, value in row.outputs.items() if key not in row.inputs}
    outputs = order.inputs | made
    if "vpcConfig" in order.inputs:
        outputs["vpcConfig"] = row.outputs["vpcConfig"] | order.inputs["vpcConfig"]
    if "latestVersion" in made:
        outputs["latestVersion"] = made["latestVersion"] + 1
    cloud.change(row, order.inputs, outputs, named)
    return outputs


def read(store: Store, order: Order, identity: str) -> Row | None:
    """The resource as it is now."""
    with store.transaction() as cloud:
        row = cloud.by_id(order.token, identity, order.account, order.region)
        outcome = "ok" if row else "NotFound"
        cloud.log("read", order.token, identity, order.account, order.urn, outcome)
    return row


def delete(store: Store, order: Order, identity: str) -> None:
    """Delete a resource; nothing where it is not there."""
    with store.transaction() as cloud:
        row = cloud.by_id(order.token, identity, order.account, order.region)
        error: Refused | None = None
        if row is not None:
            try:
                check_deletable(cloud, row)
            except Refused as refused:
                error = refused
            else:
                _delete(cloud, row)
        outcome = str(error) if error else "ok" if row else "NotFound"
        cloud.log("delete", order.token, identity, order.account, order.urn, outcome)
    if error:
        raise error


def _delete(cloud: Transaction, row: Row) -> None:
    cloud.remove(row)
    cloud.sql("delete from contents where owner = ?", (row.arn,))
    if row.type == "aws:eks/cluster:Cluster":
        # What is in a cluster goes with it.
        endpoint = row.outputs["endpoint"].lower()
        cloud.sql("delete from objects where cluster = ?", (endpoint,))
        for inside in cloud.rows("alive and id glob ?", (f"{endpoint}/*",)):
            cloud.remove(inside)


def has_tags(token: str) -> bool:
    """Whether a type takes tags, as its class in the SDK says."""
    return "tagsAll" in properties(token)


@functools.cache
def properties(token: str) -> frozenset[str]:
    """The properties of a type's class in the SDK; read from its text, which is quicker."""
    _, path, _ = token.split(":")
    module, _, name = path.partition("/")
    spec = importlib.util.find_spec("pulumi_aws")
    if spec is None or spec.origin is None:
        return frozenset()
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    folder = Path(spec.origin).parent
    file = folder / ("" if module == "index" else module) / f"{snake}.py"
    if not file.is_file():
        return frozenset()
    return frozenset(named or plain for named, plain in GETTER.findall(file.read_text()))
