"""API keys that AWS keeps: fetched when a client is made, and held by nothing but that client.

What the environment says is the key itself, or the ARN of where it is kept: a secret of Secrets Manager or a parameter
of Parameter Store. An ARN is no secret, and may stand wherever an environment is shown.
"""

from __future__ import annotations

import json
import logging
import re
import warnings

from llm_assets.errors import ProviderError, SystemicError, TransientError

_ARN = re.compile(r"arn:[a-z-]+:(?P<service>[a-z0-9-]+):(?P<region>[a-z0-9-]+):\d*:\S+")
# A tick of the sensor has a minute, and comes again.
_ATTEMPTS = 2
# What only a person can mend. Whatever else AWS says may pass.
_FOR_GOOD = re.compile("NotFound|AccessDenied|Decryption|InvalidRequest|InvalidParameter|Validation|UnrecognizedClient")


def fetched(said: str, variable: str) -> str:
    """The key that a variable of the environment says: itself, or what AWS keeps at the ARN.

    A JSON object at the ARN holds the key under the variable's name. Raises SystemicError where there is no key,
    TransientError where AWS does not answer now. Neither holds anything of a key.
    """
    if not said.startswith("arn:"):
        return said
    kept = _kept(said, variable)
    if not kept.lstrip().startswith("{"):
        return kept
    try:
        key = json.loads(kept).get(variable)
    except ValueError:
        key = None
    if not isinstance(key, str):
        raise _no_key(f"{variable}: {said} holds JSON that has no {variable}: add it, or keep the key alone")
    return key


def _kept(arn: str, variable: str) -> str:
    """What is kept at an ARN."""
    from botocore.exceptions import (  # type: ignore[import-untyped]
        BotoCoreError,
        ClientError,
        NoCredentialsError,
    )
    from dagster_aws.secretsmanager import SecretsManagerResource
    from dagster_aws.ssm import SSMResource

    named = _ARN.fullmatch(arn)
    if named is None or named["service"] not in ("secretsmanager", "ssm"):
        raise _no_key(f"{variable} is the ARN of no secret of Secrets Manager and of no parameter of Parameter Store")
    logging.getLogger("botocore.parsers").setLevel(logging.INFO)  # below, it logs what came back, keys included
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Dagster's resources for AWS are in beta, they say
            if named["service"] == "ssm":
                parameters = SSMResource(region_name=named["region"], max_attempts=_ATTEMPTS).get_client()
                return str(parameters.get_parameter(Name=arn, WithDecryption=True)["Parameter"]["Value"])
            secrets = SecretsManagerResource(region_name=named["region"], max_attempts=_ATTEMPTS).get_client()
            return str(secrets.get_secret_value(SecretId=arn).get("SecretString", ""))
    except NoCredentialsError:
        raise _no_key(
            f"{variable}: there are no AWS credentials to read {arn} with: run where a role is given"
        ) from None
    except ClientError as error:
        raise refused(arn, variable, error.response["Error"]["Code"]) from None
    except BotoCoreError as error:
        raise TransientError(
            f"{variable}: {arn} cannot be read now ({type(error).__name__})", code="key_unread"
        ) from None


def refused(arn: str, variable: str, code: str) -> ProviderError:
    """What AWS says with an error's code, as one of ours: for a person to mend, or for the next attempt."""
    if _FOR_GOOD.search(code):
        return _no_key(
            f"{variable}: AWS does not give out {arn} ({code}): check that it is there, and that the role may read it "
            "(secretsmanager:GetSecretValue or ssm:GetParameter, and kms:Decrypt)"
        )
    return TransientError(f"{variable}: {arn} cannot be read now ({code})", code="key_unread")


def _no_key(message: str) -> SystemicError:
    return SystemicError(message, code="no_api_key")
