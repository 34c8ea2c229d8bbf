"""settings.py: any environment is a Settings or a SettingsError, and no secret is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.interpretation import Prediction
from mnist_pipeline.pipeline.settings import Settings, SettingsError
from mnist_pipeline.pipeline.unknown_settings import unknown_settings

SECRET = "s3cr3t-of-the-tests"
_TOKEN = "KAFKA_SASL_OAUTHBEARER_"
_SECRETS = ("MINIO_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "KAFKA_SASL_PASSWORD", f"{_TOKEN}CLIENT_SECRET")
_OTHERS = (
    *("MINIO_ENDPOINT", "S3_ENDPOINT", "AWS_ENDPOINT_URL", "S3_USE_HTTPS", "MINIO_REGION", "MINIO_CA_CERT"),
    *("MINIO_ACCESS_KEY", "MINIO_ACCESS_KEY_FILE", "MINIO_SECRET_KEY_FILE", "AWS_ACCESS_KEY_ID"),
    *("SOURCE_BUCKETS", "SOURCE_SUFFIXES", "DESTINATION", "REJECTED_BUCKET", "REQUEST_TRACE_KEY"),
    *("REVIEW_BELOW", "REVIEW_BUCKET", "KAFKA_CLIENT"),
    *("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC", "KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_MECHANISM"),
    *("KAFKA_SASL_USERNAME", "KAFKA_SSL_CAFILE", "KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE", "KAFKA_API_VERSION"),
    *(f"{_TOKEN}{part}" for part in ("TOKEN_FILE", "TOKEN_ENDPOINT_URL", "CLIENT_ID", "SCOPE")),
    *("AWS_REGION", "AWS_DEFAULT_REGION"),
    *("EVENT_TYPE", "EVENT_SOURCE", "EVENT_MODE", "PREDICTOR_FORMAT", "INFERENCE_SERVICE_NAME", "POD_NAMESPACE"),
    *("MAX_BODY_BYTES", "MAX_OBJECT_BYTES", "MAX_IMAGE_PIXELS", "EVENT_TIMEOUT_SECONDS", "MAX_IN_FLIGHT"),
)
# What an environment can hold: anything but a zero byte.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
values = texts | st.sampled_from(
    [
        *("", " ", "0", "1", "-1", "9" * 5_000, "1e309", "nan", "inf", "0.5", "\u0663", "2.3", "2.3.4.5"),
        *("minio:9000", "https://minio", "http://[", "http://[::1]:9000", "http://h:99999", "h:9000,i", ",", "//h/p?q"),
        *("SASL_SSL", "SSL", "PLAIN", "SCRAM-SHA-512", "binary", "structured", "tensorflow", "openinference"),
        *("OAUTHBEARER", "AWS_MSK_IAM", "https://issuer/token", "https://issuer/?a=b#c"),
        *("mnist", "mnist,others", "digit-{digit}", "mnist/{digit}", "mnist/../{digit}", "{digit}", "{", "a" * 64),
        *("/nowhere/file", "/", ".", "\u2100", "h\u2100st:9"),
    ]
)
with_the_secret = st.sampled_from(
    [
        *("https://user:%s@minio:9000", "user:%s@minio", "http://user:%s@[", "http://user:%s@h\u2100st"),
        *("kafka:9092,user:%s@other:9092", "https://kafka:9092,user:%s@other", "http://minio/?%s", "http://minio#%s"),
        *("user:%s@h:port", "ftp://user:%s@h", "//user:%s@h", "http://user\\:%s@h"),
    ]
).map(lambda url: url % SECRET)

environments = st.builds(
    lambda others, secrets, urls: {**others, **secrets, **urls},
    st.dictionaries(st.sampled_from(_OTHERS), values, max_size=8),
    st.dictionaries(st.sampled_from(_SECRETS), st.just(SECRET), max_size=2),
    st.dictionaries(
        st.sampled_from(
            ["MINIO_ENDPOINT", "AWS_ENDPOINT_URL", "KAFKA_BOOTSTRAP_SERVERS", f"{_TOKEN}TOKEN_ENDPOINT_URL"]
        ),
        with_the_secret,
        max_size=1,
    ),
)


KNOWN = {*_OTHERS, *_SECRETS, *(name + "_FILE" for name in _SECRETS)}
# What looks like a setting, and what an environment can hold besides.
names = st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), max_size=20) | st.from_regex(
    "(KAFKA|MINIO|S3|MAX|EVENT|SOURCE|POD)[._-][A-Za-z0-9_.-]{0,20}", fullmatch=True
)
# A word of the servers' would do for a letter's change in these only by chance.
mistyped = st.builds(
    lambda name, place, letter: name[: place % len(name)] + letter + name[place % len(name) + 1 :],
    st.sampled_from(sorted(name for name in KNOWN if not name.startswith("AWS_"))),
    st.integers(min_value=1, max_value=100),
    st.sampled_from(["", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ_"]),
).filter(lambda name: name not in KNOWN and name[0].isalpha())


def assert_problems_can_be_shown(problems: tuple[str, ...]) -> None:
    assert problems
    for problem in problems:
        assert SECRET not in problem
        assert problem.split(" ", 1)[0] in KNOWN
        assert problem.isprintable(), problem


@given(environments, st.sampled_from(["v1", "v2", "grpc-v2"]))
def test_any_environment_is_settings_or_an_error_that_names_the_variables_and_no_secret(
    environ: dict[str, str], protocol: str
) -> None:
    try:
        settings = Settings.from_environ(environ, Digits(), predictor_protocol=protocol)
    except SettingsError as exc:
        assert_problems_can_be_shown(exc.problems)
        return
    assert SECRET not in repr(settings)
    assert settings.max_in_flight > 0
    assert 0 < settings.event_timeout_seconds < float("inf")
    for digit in range(10):
        destination = settings.destination_of(Prediction(digit))
        assert destination.bucket
        assert not destination.prefix or destination.prefix.endswith("/")


@given(st.dictionaries(names, st.just(SECRET), max_size=8))
def test_any_environment_is_told_by_names_alone(environ: dict[str, str]) -> None:
    for sentence in unknown_settings(environ, Digits()):
        assert SECRET not in sentence
        assert sentence.isascii()
        assert sentence.isprintable(), sentence
        name, *_, meant, end = sentence.split(" ")
        assert name in environ
        if name == "REVIEW_BUCKET":  # it is one, and of no use alone
            assert sentence == "REVIEW_BUCKET is not used: REVIEW_BELOW is not set"
            continue
        assert meant in KNOWN
        assert end == "meant?"


@given(mistyped)
def test_a_setting_with_one_wrong_letter_is_told(name: str) -> None:
    (sentence,) = unknown_settings({name: SECRET}, Digits())
    assert sentence.startswith(f"{name} is no setting: is ")
