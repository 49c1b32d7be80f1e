"""What botocore raises, as what a tracker raises: the same call may succeed later, or will not.

Imported without botocore: only what catches an error of its needs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fl_core.errors import nearest
from fl_core.tracking import retry_after
from fl_core.tracking.contract import Refused, Unavailable

LONGEST = 400
"""Characters of what AWS says that an error repeats."""
CREDENTIALS = (
    "give it credentials of the ordinary AWS chain: its pod's role (EKS Pod Identity), "
    "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
_BUSY = {
    "429",
    "BandwidthLimitExceeded",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "TooManyRequestsException",
}
_FAILED = {
    "ConflictException",  # someone else changes the same thing just now
    "InternalError",
    "InternalFailure",
    "InternalServerException",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
}
_DENIED = {
    "403",
    "AccessDenied",
    "AccessDeniedException",
    "AllAccessDisabled",
    "Forbidden",
    "NotAuthorized",
    "UnauthorizedOperation",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_BAD_CREDENTIALS = {
    "AuthFailure",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_NO_BUCKET = {"404", "NoSuchBucket"}
_OTHER_REGION = {"301", "AuthorizationHeaderMalformed", "PermanentRedirect"}
_EXISTS = ("already exists", "already associated", "must be unique within an AWS account")
"""AWS changes how it says it: https://github.com/aws/sagemaker-python-sdk/pull/6256."""
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


class Exists(Refused):
    """Something of this name is there already."""


class Missing(Refused):
    """Nothing of this name is there."""


class Expired(Unavailable):
    """The credentials were good, and are too old now.

    Not Refused: a run outlives a session, and whoever renews it (a login, a file that is written
    anew) goes on where it stopped, if the chain of credentials is asked again.
    """


@contextmanager
def told(what: str, needs: str) -> Iterator[None]:
    """Turn what botocore raises in the block into Unavailable or Refused.

    ``what`` was asked for: IAM's name of the action, and on what. ``needs`` is what to do where
    that is denied.
    """
    from botocore import exceptions as aws
    from botocore.parsers import ResponseParserError

    try:
        yield
    except aws.ClientError as error:
        raise _answer(what, needs, error.response) from error
    except (aws.CredentialRetrievalError, aws.TokenRetrievalError, aws.SSOError) as error:
        raise Expired(f"{what}: no credentials just now: {said(error)}", CREDENTIALS) from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
        raise Refused(f"{what}: no credentials for it: {said(error)}", CREDENTIALS) from error
    except (aws.ConnectionError, aws.HTTPClientError) as error:
        raise Unavailable(
            f"{what}: the endpoint does not answer: {said(error)}",
            "is there a way from here to AWS (VPC endpoints, proxy, AWS_ENDPOINT_URL)?",
        ) from error
    except ResponseParserError as error:
        raise Unavailable(
            f"{what}: the answer is none of AWS's: {said(error)}",
            "is there a proxy in between, or another service at AWS_ENDPOINT_URL?",
        ) from error
    except (aws.BotoCoreError, ValueError) as error:  # a setting or an argument that is none
        raise Refused(f"{what}: {said(error)}", "correct the AWS settings") from error


def said(text: object) -> str:
    """One line of limited length, without a user's name and password in a URL."""
    line = " ".join(_USER_IN_URL.sub("", str(text)).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def known_region(session: Any, how: str) -> str:
    """The region of a boto3 session, one in which SageMaker is. Raises Refused.

    ``how``: what else gives one beside the ordinary AWS settings.
    """
    region = session.region_name
    if not region:
        raise Refused(
            "no AWS region is set", f"give one: AWS_DEFAULT_REGION, the profile's, or {how}"
        )
    from botocore.exceptions import UnknownRegionError

    try:
        partition = session.get_partition_for_region(region)
    except UnknownRegionError:
        partition = "aws"
    known = session.get_available_regions("sagemaker", partition)
    if region not in known:
        raise Refused(
            f"SageMaker has no region {region!r:.60}",
            f"{nearest(region, known)}; or a newer boto3, where AWS has it by now",
        )
    return region


def _answer(what: str, needs: str, response: Any) -> Unavailable | Refused:
    """What AWS answered, as an error."""
    code = str(response.get("Error", {}).get("Code", "unknown"))
    message = said(response.get("Error", {}).get("Message", ""))
    meta = response.get("ResponseMetadata", {})
    status = meta.get("HTTPStatusCode", 0)
    if code in _BUSY or code.startswith("Throttl") or code.endswith("ThrottlingException"):
        after = retry_after.seconds(meta.get("HTTPHeaders", {}).get("retry-after", ""))
        return Unavailable(f"{what}: AWS is busy ({code})", "it is asked again", after)
    if code in _FAILED or status == 429 or status >= 500:
        after = retry_after.seconds(meta.get("HTTPHeaders", {}).get("retry-after", ""))
        return Unavailable(f"{what}: AWS failed ({code}: {message})", "it is asked again", after)
    if code in _EXPIRED:
        return Expired(
            f"{what}: the credentials have expired ({code})",
            "renew them (`aws sso login`, a new session): what is left is delivered then",
        )
    if code in _BAD_CREDENTIALS:
        # Not what AWS says: it repeats the request that was signed, a session's token with it.
        return Refused(
            f"{what}: AWS does not take the credentials ({code})",
            f"{CREDENTIALS}; is the clock right, and the region enabled in the account?",
        )
    if code in _DENIED:
        return Refused(f"{what}: access denied ({message})", needs)
    if code in _NO_BUCKET:
        return Refused(f"{what}: there is no such bucket", "correct the bucket's name, or make it")
    if code in _OTHER_REGION:
        return Refused(f"{what}: the bucket is in another region ({code})", "name that region")
    if code in ("ResourceNotFound", "ResourceNotFoundException"):
        return Missing(
            f"{what}: it is not there ({message})",
            "was it deleted? the figures are in the run's folder still",
        )
    if code == "ValidationException" and any(words in message for words in _EXISTS):
        return Exists(f"{what}: it is there already ({message})", "choose another prefix")
    if code in ("ResourceLimitExceeded", "ResourceLimitExceededException", "QuotaExceeded"):
        return Refused(
            f"{what}: the account's quota is used up ({message})",
            "delete what is not needed any more, or have AWS raise the quota",
        )
    if code == "ValidationException":
        return Refused(f"{what}: AWS does not take it: {message}", "correct what AWS names")
    return Refused(f"{what}: AWS answers {code}: {message}", "see what AWS says of this error")
