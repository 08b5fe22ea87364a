"""Why no connection to a broker came about, as a sentence."""

import socket
import ssl

from edgernn_device.address import BrokerAddress

# OpenSSL, X509_V_ERR_…
OUT_OF_DATE = (9, 10)
OTHER_HOST = (62, 64)

ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the broker wants a client certificate: give cert_file "
    "and key_file",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the broker found no common ground; does it want a client "
    "certificate?",
    "TLSV1_ALERT_UNKNOWN_CA": "the broker does not trust this client's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the broker does not accept this client's certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "this client's certificate has expired, says the broker",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "this client's certificate is revoked, says the broker",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the broker does not accept this client's certificate",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the broker speaks no TLS 1.2 or later",
    "UNSUPPORTED_PROTOCOL": "the broker speaks no TLS 1.2 or later",
    "WRONG_VERSION_NUMBER": "no TLS on this port; write mqtt:// if that is meant",
    "UNEXPECTED_EOF_WHILE_READING": "the connection was cut at once; does this port speak TLS?",
}
"""OpenSSL's reason → what it means here. TLS 1.2 gives no reason for a missing certificate."""


def explain(exc: OSError, address: BrokerAddress) -> str:
    """Why no connection to `address` came about, as a sentence."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"{address}: the broker's certificate {_untrusted(exc)}"
    if isinstance(exc, ssl.SSLError):
        unknown = f"no TLS on this port, or not with these certificates: {exc.reason}"
        return f"{address}: {ALERTS.get(exc.reason, unknown)}"
    if isinstance(exc, socket.gaierror):
        return f"{address}: no such host ({exc.strerror})"
    if isinstance(exc, ConnectionRefusedError | FileNotFoundError):
        return f"{address}: nothing listens there; is the broker running?"
    if isinstance(exc, TimeoutError):
        return f"{address}: no answer; is the host up, and the port open?"
    if isinstance(exc, ConnectionError) and address.tls:
        return f"{address}: {ALERTS['UNEXPECTED_EOF_WHILE_READING']}"
    if isinstance(exc, ConnectionError):
        return f"{address}: the connection was cut at once; is this the broker's port?"
    return f"{address}: no connection: {exc.strerror or exc}"


def _untrusted(exc: ssl.SSLCertVerificationError) -> str:
    why = exc.verify_message.rstrip(".")
    if exc.verify_code in OTHER_HOST:
        return f"is for another host: {why}"
    if exc.verify_code in OUT_OF_DATE:
        return f"is out of date, or this device's clock is wrong: {why}"
    return f"is not trusted: {why}; give the authority that signed it as CA file"
