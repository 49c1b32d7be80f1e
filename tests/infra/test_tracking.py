"""That coordinator and agents are told to track, where they may, and by ways that are there."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from fl_core.cli.tracker import TrackerChoice
from fl_core.spec import Choice
from fl_core.tracking import experiments
from fl_core.tracking.contract import Outcome, Part, Point, Status
from fl_core.tracking.sagemaker import SageMaker, SageMakerParams
from infra.endpoints import SERVICES

from . import iam, stacks
from .recording import Recording, record

AGGREGATOR = "aggregator"
NAMED = {
    experiments.EXPERIMENT: "ExperimentName",
    experiments.TRIAL: "TrialName",
    experiments.COMPONENT: "TrialComponentName",
}
"""Where a call has a resource's name, by its kind."""
OPERATIONS = {xform_name(action): action for action in experiments.ACTIONS}
LONG = "too long for an experiment"
NAMES = {
    "short": ("a", "b"),
    "ordinary": ("heart", "north"),
    LONG: ("f" * 31, "s" * 31),
    "like another's": ("a-client-b", "c"),
}


class _Api:
    """Writes down what SageMaker is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, operation: str) -> Any:
        def answer(**given: Any) -> dict[str, str]:
            self.asked.append((OPERATIONS[operation], given))
            return {f"{kind}Arn": "arn" for kind in ("Experiment", "Trial", "TrialComponent")}

        return answer


def made_of(federation: str, silo: str, party: str = "all") -> Recording:
    """The stack `dev` under these names; with ``party``, that party's own stack."""
    content = stacks.filled("dev") | {"federation": federation}
    content["silos"][0]["name"] = silo
    if party == AGGREGATOR:
        guest = {key: content["silos"][0][key] for key in ("name", "account", "region")}
        content |= {"party": party, "silos": [guest]}
    elif party == "silo":
        pem = f"-----BEGIN CERTIFICATE-----\n{'A' * 64}\n-----END CERTIFICATE-----\n"
        host = {key: content["aggregator"][key] for key in ("account", "region")}
        given = {"service": f"com.amazonaws.vpce.{host['region']}.vpce-svc-0123456789abcdef0"}
        content = {
            **{key: content[key] for key in ("federation", "image")},
            "party": party,
            "aggregator": host | given | {"authority": pem, "certificate": pem},
            "silo": content["silos"][0],
        }
    return record(content, party)


def settings_of(made: Recording, party: str) -> dict[str, str]:
    """The environment of a party's service."""
    service = "coordinator" if party == AGGREGATOR else "agent"
    return made.of("v1:ConfigMap", f"{party}-{service}").properties["data"]


def tracks(made: Recording, party: str) -> list[Choice]:
    """What the service reads of it."""
    said = settings_of(made, party).get("FL_TRACK", "")
    return [TrackerChoice().convert(one, None, None) for one in said.split()]


def policy_of(made: Recording, party: str) -> str:
    """What the service may do."""
    service = "coordinator" if party == AGGREGATOR else "agent"
    return made.of(":RolePolicy", f"{party}-{service}").properties["policy"]


def asked_for(choice: Choice, silo: str | None) -> list[tuple[str, dict[str, Any]]]:
    """All that the tracker asks of SageMaker for a run."""
    api = _Api()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SageMaker, "_client", lambda self, service: api)
        tracker = SageMaker(SageMakerParams(**{**choice.params, "bucket": None}))
        tracker.check([silo])
        handle = tracker.start(Part("r" * 63, silo, "5" * 64, 1_790_000_000.0, {}))
        tracker.log(handle, [Point(1_790_000_000.5, 1, "Test:AUC", 0.5)], again=False)
        tracker.end(handle, Outcome(Status.COMPLETED, "", 1_790_000_001.0), {}, {})
    return api.asked


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "all") for name in NAMES), (LONG, AGGREGATOR), (LONG, "silo")],
)
def test_the_tracker_writes_into_what_the_roles_grant(name: str, kind: str):
    federation, silo = NAMES[name]
    made = made_of(federation, silo, kind)
    accounts = {AGGREGATOR: "1" * 12, silo: "2" * 12}
    parties = {"all": [*accounts], AGGREGATOR: [AGGREGATOR], "silo": [silo]}[kind]
    for party in parties:
        (choice,) = tracks(made, party)
        assert choice.name == SageMaker.name
        policy = policy_of(made, party)
        asked = asked_for(choice, None if party == AGGREGATOR else party)
        assert len({action for action, _ in asked}) > 6
        for action, given in asked:
            for resource in experiments.ACTIONS[action]:
                place = f"{resource}/{given[NAMED[resource]]}"
                arn = f"arn:aws:sagemaker:eu-central-1:{accounts[party]}:{place}"
                assert iam.decision(policy, f"sagemaker:{action}", arn) == "Allow", arn


def test_only_the_coordinator_keeps_files_and_in_its_own_bucket(made: Recording, stack: str):
    (choice,) = tracks(made, AGGREGATOR)
    bucket = choice.params["bucket"]
    assert bucket == made.outputs["artifacts"]
    file = f"arn:aws:s3:::{bucket}/{experiments.ARTIFACTS}/run/model.safetensors"
    for action in experiments.ARTIFACT_ACTIONS:
        assert iam.decision(policy_of(made, AGGREGATOR), action, file) == "Allow"
    for silo in stacks.filled(stack)["silos"]:
        (choice,) = tracks(made, silo["name"])
        assert choice.params == {"prefix": "heart"}
        for action in experiments.ARTIFACT_ACTIONS:
            assert iam.decision(policy_of(made, silo["name"]), action, file) == ""


def test_without_tracking_nobody_is_told_to_and_nobody_may():
    made = record(stacks.filled("dev") | {"tracking": False}, "dev")
    for party in (AGGREGATOR, "cleveland", "hungary"):
        assert tracks(made, party) == []
    for one in made.all(":RolePolicy"):
        assert "sagemaker" not in one.properties["policy"], one.name
        assert "artifacts" not in one.properties["policy"], one.name
    # With nothing left to be allowed there is no role: IAM takes no policy without a statement.
    assert not [one for one in made.all("role:Role") if one.name == "aggregator-coordinator"]
    assert made.of("v1:ConfigMap", "aggregator-coordinator")


def test_what_the_pods_call_with_is_of_their_region(
    made: Recording, stack: str, monkeypatch: pytest.MonkeyPatch
):
    """boto3 takes no Region from AWS_REGION."""
    config = stacks.filled(stack)
    for site in (config[AGGREGATOR], *config["silos"]):
        for name, value in settings_of(made, site.get("name", AGGREGATOR)).items():
            if name.startswith("AWS_"):
                monkeypatch.setenv(name, value)
        assert botocore.session.Session().get_config_variable("region") == site["region"]


# The ways


def endpoint(made: Recording, party: str, service: str) -> str:
    """The policy of a party's endpoint."""
    name = f"{party}-{service.replace('.', '-')}"
    return made.of("VpcEndpoint", name).properties["policy"]


@pytest.mark.parametrize(
    ("client", "service"),
    [("sagemaker", "sagemaker.api"), ("sagemaker-metrics", "sagemaker.metrics")],
)
def test_the_tracker_calls_hosts_that_have_an_endpoint(client: str, service: str):
    """A service's private name is that of its endpoint backwards."""
    assert service in SERVICES
    session = botocore.session.get_session()
    made = session.create_client(
        client, region_name="eu-west-3", aws_access_key_id="a", aws_secret_access_key="b"
    )
    kind, of = reversed(service.split(".")), "eu-west-3.amazonaws.com"
    assert made.meta.endpoint_url == f"https://{'.'.join(kind)}.{of}"
    made.close()


def test_the_endpoints_let_the_tracker_do_what_it_does(made: Recording, stack: str):
    config = stacks.filled(stack)
    for site in (config[AGGREGATOR], *config["silos"]):
        party = site.get("name", AGGREGATOR)
        ours = {"aws:PrincipalAccount": site["account"], "aws:ResourceAccount": site["account"]}
        for service in ("sagemaker.api", "sagemaker.metrics"):
            policy = endpoint(made, party, service)
            for action in experiments.ACTIONS:
                assert iam.decision(policy, f"sagemaker:{action}", "any", ours) == "Allow"
        file = f"arn:aws:s3:::artifacts/{experiments.ARTIFACTS}/one"
        for action in experiments.ARTIFACT_ACTIONS:
            policy = endpoint(made, party, "s3")
            assert iam.decision(policy, action, file, ours) == "Allow"
            assert iam.decision(policy, action, file, ours | {"aws:ResourceAccount": "9"}) == ""
