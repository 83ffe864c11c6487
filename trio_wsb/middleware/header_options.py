"""The options of `headers`: custom fields, fields for browsers' safety, and CORS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import Factory, frozen

from trio_wsb.middleware.exchange import is_protected
from trio_wsb.middleware.options import MANY, OptionProblem, between, is_field_value, is_token, option
from trio_wsb.routing.regex import Regex


@frozen
class HeadersOptions:
    """What to change about the header fields of requests and responses."""

    custom_request_headers: Mapping[str, str] = option(
        'Fields to set in the request, in place of the client\'s; "" removes one.', Factory(dict)
    )
    custom_response_headers: Mapping[str, str] = option(
        'Fields to set in the response, in place of the backend\'s, on the 101 too; "" removes one.',
        Factory(dict),
    )
    access_control_allow_credentials: bool = option("CORS: pages may send cookies.", default=False)
    access_control_allow_headers: tuple[str, ...] = option("CORS: fields that pages may send.", ())
    access_control_allow_methods: tuple[str, ...] = option("CORS: methods that pages may use.", ())
    access_control_allow_origin_list: tuple[str, ...] = option(
        "CORS: origins whose pages may read responses; `*` is every one.", ()
    )
    access_control_allow_origin_list_regex: tuple[Regex, ...] = option(
        "CORS: patterns for such origins; write `^` and `$` where they are meant.", ()
    )
    access_control_expose_headers: tuple[str, ...] = option("CORS: fields that pages may read.", ())
    access_control_max_age: int = option(
        "CORS: seconds for which a browser may keep the answer to a preflight; 0 says nothing.",
        0,
        check=between(0, MANY),
    )
    add_vary_header: bool = option(
        "Tell caches that responses differ by Origin (with `accessControlAllowOriginList`).", default=False
    )
    allowed_hosts: tuple[str, ...] = option("The only values of Host (with its port) that may pass.", ())
    hosts_proxy_headers: tuple[str, ...] = option("Fields that may hold the Host in its place.", ())
    ssl_proxy_headers: Mapping[str, str] = option(
        "Fields with the value that says that the client came by HTTPS.", Factory(dict)
    )
    sts_seconds: int = option(
        "Strict-Transport-Security: max-age, on HTTPS; 0 sends none.", 0, check=between(0, MANY)
    )
    sts_include_subdomains: bool = option("Strict-Transport-Security: includeSubDomains.", default=False)
    sts_preload: bool = option("Strict-Transport-Security: preload.", default=False)
    force_sts_header: bool = option(
        "Send Strict-Transport-Security on HTTP too.", default=False, key="forceSTSHeader"
    )
    frame_deny: bool = option("X-Frame-Options: DENY.", default=False)
    custom_frame_options_value: str = option("X-Frame-Options with this value.", "")
    content_type_nosniff: bool = option("X-Content-Type-Options: nosniff.", default=False)
    browser_xss_filter: bool = option("X-XSS-Protection: 1; mode=block.", default=False)
    custom_browser_xss_value: str = option(
        "X-XSS-Protection with this value.", "", key="customBrowserXSSValue"
    )
    content_security_policy: str = option("Content-Security-Policy with this value.", "")
    content_security_policy_report_only: str = option(
        "Content-Security-Policy-Report-Only with this value.", ""
    )
    public_key: str = option("Public-Key-Pins with this value, on HTTPS; browsers have given it up.", "")
    referrer_policy: str = option("Referrer-Policy with this value.", "")
    permissions_policy: str = option("Permissions-Policy with this value.", "")
    is_development: bool = option(
        "Leave `allowedHosts`, Strict-Transport-Security and Public-Key-Pins out.", default=False
    )

    @property
    def cors(self) -> bool:
        """Whether anything is said about CORS."""
        return bool(
            self.access_control_allow_credentials
            or self.access_control_allow_headers
            or self.access_control_allow_methods
            or self.access_control_allow_origin_list
            or self.access_control_allow_origin_list_regex
            or self.access_control_expose_headers
            or self.access_control_max_age
            or self.add_vary_header
        )

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong with names and values, and what has no effect."""
        if self == HeadersOptions():
            yield OptionProblem(
                (), "changes nothing", "write what to change or leave the middleware out", "warning"
            )
        for option_name in ("custom_request_headers", "custom_response_headers", "ssl_proxy_headers"):
            yield from _mapping_problems(option_name, getattr(self, option_name))
        for option_name in (
            "access_control_allow_headers",
            "access_control_allow_methods",
            "access_control_expose_headers",
            "hosts_proxy_headers",
        ):
            for index, name in enumerate(getattr(self, option_name)):
                if not is_token(name):  # "*" is one
                    yield OptionProblem((option_name, index), "is not a name", "write one name for each item")
        for index, origin in enumerate(self.access_control_allow_origin_list):
            if not is_field_value(origin) or not origin:
                path = ("access_control_allow_origin_list", index)
                yield OptionProblem(path, "is not an origin", 'write an origin such as "https://example.com"')
        if self.access_control_allow_credentials and "*" in self.access_control_allow_origin_list:
            path = ("access_control_allow_origin_list", self.access_control_allow_origin_list.index("*"))
            message = "lets every page on the web read what the user may read"
            yield OptionProblem(path, message, "name the origins that you mean", "warning")
        for option_name in _VALUES:
            value: str = getattr(self, option_name)
            if not is_field_value(value):
                message = "has a character that no header field may have"
                yield OptionProblem((option_name,), message, "write one line without control characters")
            elif "$NONCE" in value:
                message = "has $NONCE, which is not replaced: the backend would not know what it became"
                yield OptionProblem((option_name,), message, "let the backend send the policy", "warning")


_VALUES = (
    "custom_frame_options_value",
    "custom_browser_xss_value",
    "content_security_policy",
    "content_security_policy_report_only",
    "public_key",
    "referrer_policy",
    "permissions_policy",
)


def _mapping_problems(option_name: str, fields: Mapping[str, str]) -> Iterator[OptionProblem]:
    first: dict[str, str] = {}
    for name, value in fields.items():
        path = (option_name, name)
        lower = name.lower()
        if not is_token(name):
            yield OptionProblem(path, "is no name of a header field", "write a name such as X-Script-Name")
        elif not is_field_value(value):
            message = "has a character that no header field may have"
            yield OptionProblem(path, message, "write one line without control characters")
        elif is_protected(lower) and option_name != "ssl_proxy_headers":
            message = "belongs to the connection or the handshake and is ignored"
            yield OptionProblem(path, message, "leave it out: upgrades work without it", "warning")
        elif lower in first:
            message = f"is the same field as {first[lower]}"
            yield OptionProblem(path, message, "write each field once; upper and lower case do not differ")
        first.setdefault(lower, name)
