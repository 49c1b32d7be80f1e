"""Load balancers and PrivateLink. Part of a test double."""

from __future__ import annotations

from .kinds import KINDS, Kind, Making, Refused, as_list, ec2
from .store import Properties, Row

ELB = "arn:aws:elasticloadbalancing:{region}:{account}:"


def _zones(making: Making, subnets: list[str]) -> list[str]:
    return [making.find(subnet).outputs["availabilityZone"] for subnet in subnets]


def _load_balancer(making: Making) -> Properties:
    inputs = making.inputs
    subnets = as_list(inputs.get("subnets"))
    subnets += [mapping["subnetId"] for mapping in as_list(inputs.get("subnetMappings"))]
    if not subnets:
        raise Refused("ValidationError", "At least one subnet must be specified")
    zones = _zones(making, subnets)
    if len(set(zones)) < len(zones):
        message = "A load balancer cannot be attached to multiple subnets in the same zone"
        raise Refused("InvalidConfigurationRequest", message)
    flavour = {"network": "net", "gateway": "gwy"}.get(inputs.get("loadBalancerType", ""), "app")
    suffix = f"{flavour}/{making.words['name']}/{making.words['hex16']}"
    arn = f"{ELB.format_map(making.words)}loadbalancer/{suffix}"
    vpc = making.find(subnets[0]).inputs["vpcId"]
    return {"id": arn, "arn": arn, "arnSuffix": suffix, "vpcId": vpc}


def _listener(making: Making) -> Properties:
    balancer = making.find(making.inputs["loadBalancerArn"])
    begin = ELB.format_map(making.words)
    arn = f"{begin}listener/{balancer.outputs['arnSuffix']}/{making.words['hex16']}"
    return {"id": arn, "arn": arn}


def _endpoint_service(making: Making) -> Properties:
    balancers = as_list(making.inputs.get("networkLoadBalancerArns"))
    zones: list[str] = []
    for arn in balancers:
        balancer = making.find(arn)
        for other in making.cloud.naming(balancer):
            if other.type.endswith(":VpcEndpointService"):
                raise Refused("InvalidParameter", f"{arn} is already used by {other.id}")
        zones += _zones(making, as_list(balancer.inputs.get("subnets")))
    return {"availabilityZones": sorted(set(zones))}


def _endpoint(making: Making) -> Properties:
    """An endpoint, for a service of AWS or of a stack."""
    inputs, words = making.inputs, making.words
    service_name = inputs.get("serviceName", "")
    subnets = as_list(inputs.get("subnetIds"))
    interface = inputs.get("vpcEndpointType", "Gateway") == "Interface"
    zones = _zones(making, subnets)
    if len(set(zones)) < len(zones):
        message = "Found another VPC endpoint subnet in the availability zone"
        raise Refused("DuplicateSubnetsInSameZone", message)
    service = _service(making, service_name)
    state = "available"
    if service is not None:
        if making.region == service.region and not set(zones) <= set(
            service.outputs["availabilityZones"]
        ):
            message = "does not support the availability zone of the subnet"
            raise Refused("InvalidParameter", f"The VPC endpoint service {service_name} {message}")
        if service.inputs.get("acceptanceRequired"):
            state = "pendingAcceptance"
    if inputs.get("privateDnsEnabled"):
        for other in making.cloud.rows("alive and type = 'aws:ec2/vpcEndpoint:VpcEndpoint'"):
            same = all(other.inputs.get(key) == inputs.get(key) for key in ("vpcId", "serviceName"))
            if same and other.inputs.get("privateDnsEnabled"):
                message = "private-dns-enabled cannot be set because there is already a conflicting"
                raise Refused("InvalidParameter", f"{message} DNS domain in the VPC")
    if not interface:
        return {"state": state, "prefixListId": f"pl-{words['short']}", "dnsEntries": []}
    host = f"vpce-{words['hex']}-{words['short']}.{service_name.rsplit('.', 1)[-1]}"
    entry = f"{host}.{making.region}.vpce.amazonaws.com"
    return {
        "state": state,
        "dnsEntries": [{"dnsName": entry, "hostedZoneId": "Z73SF6MTMTYEXAMPLE"}],
        "networkInterfaceIds": [
            f"eni-{index:x}{words['hex'][1:]}" for index, _ in enumerate(subnets)
        ],
    }


def _service(making: Making, name: str) -> Row | None:
    """The endpoint service of a stack that a name is of; None for a service of AWS."""
    if "vpce-svc-" not in name:
        region = making.inputs.get("serviceRegion", making.region)
        if not name.startswith((f"com.amazonaws.{region}.", f"aws.api.{region}.")):
            raise Refused("InvalidServiceName", f"The Vpc Endpoint Service '{name}' does not exist")
        return None
    service = making.cloud.named(name.rsplit(".", 1)[-1])
    missing = Refused("InvalidServiceName", f"The Vpc Endpoint Service '{name}' does not exist")
    if service is None or service.outputs["serviceName"] != name:
        raise missing
    allowed = {str(arn) for arn in as_list(service.inputs.get("allowedPrincipals"))}
    for row in making.cloud.naming(service):
        if row.type.endswith(":VpcEndpointServiceAllowedPrinciple"):
            allowed.add(str(row.inputs["principalArn"]))
    mine = (f"arn:aws:iam::{making.account}:", "*")
    if service.account != making.account and not any(arn.startswith(mine) for arn in allowed):
        raise missing
    if making.region != service.region:
        supported = as_list(service.inputs.get("supportedRegions"))
        if making.inputs.get("serviceRegion") != service.region or making.region not in supported:
            raise missing
    return service


KINDS |= {
    "aws:ec2/vpcEndpoint:VpcEndpoint": ec2(
        "vpce",
        "vpc-endpoint",
        "serviceName",
        "serviceRegion",
        "vpcId",
        "vpcEndpointType",
        outputs={"ownerId": "{account}", "requesterManaged": False, "cidrBlocks": []},
        compute=_endpoint,
    ),
    "aws:ec2/vpcEndpointService:VpcEndpointService": ec2(
        "vpce-svc",
        "vpc-endpoint-service",
        outputs={
            "serviceName": "com.amazonaws.vpce.{region}.vpce-svc-{hex}",
            "baseEndpointDnsNames": ["vpce-svc-{hex}.{region}.vpce.amazonaws.com"],
            "serviceType": "Interface",
            "state": "Available",
            "managesVpcEndpoints": False,
        },
        compute=_endpoint_service,
    ),
    "aws:ec2/vpcEndpointServiceAllowedPrinciple:VpcEndpointServiceAllowedPrinciple": Kind(
        id="vpce-svc-perm-{hex}", replaces=("vpcEndpointServiceId", "principalArn")
    ),
    "aws:ec2/vpcEndpointConnectionAccepter:VpcEndpointConnectionAccepter": Kind(
        id="{vpcEndpointServiceId}_{vpcEndpointId}",
        replaces=("vpcEndpointServiceId", "vpcEndpointId"),
        outputs={"vpcEndpointState": "available"},
    ),
    "aws:lb/loadBalancer:LoadBalancer": Kind(
        id="",
        name="name",
        longest=32,
        replaces=("internal", "loadBalancerType"),
        outputs={
            "dnsName": "{name}-{hex16}.elb.{region}.amazonaws.com",
            "zoneId": "Z3F0SRJ5LGBH90",
        },
        compute=_load_balancer,
    ),
    "aws:lb/targetGroup:TargetGroup": Kind(
        id=f"{ELB}targetgroup/{{name}}/{{hex16}}",
        arn="{id}",
        name="name",
        longest=32,
        replaces=("port", "protocol", "vpcId", "targetType"),
        outputs={"arnSuffix": "targetgroup/{name}/{hex16}", "loadBalancerArns": []},
    ),
    "aws:lb/listener:Listener": Kind(id="", replaces=("loadBalancerArn",), compute=_listener),
}
