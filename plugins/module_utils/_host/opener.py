"""Who asks services of the host over HTTP; private to the collection."""

from __future__ import annotations

import base64
import ssl
import urllib.request

__all__ = ["opener", "trusting"]

HANDLERS = (
    urllib.request.HTTPHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,  # of a redirect to https where nobody asked for that
)
PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN of OpenSSL, which Python 3.9 has no name for


def opener(urls: list[str], certificate: str | None, login: str | None) -> urllib.request.OpenerDirector:
    """What asks the service at these addresses, believes that certificate, and says who asks."""
    asks = urllib.request.OpenerDirector()  # without a proxy, which a service of this host does not need
    for handler in HANDLERS:
        asks.add_handler(handler())
    if any(url.startswith("https:") for url in urls):  # to read all certificates of the system takes a while
        asks.add_handler(urllib.request.HTTPSHandler(context=trusting(certificate)))
    if login:
        asks.addheaders.append(("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}"))
    return asks


def trusting(certificate: str | None) -> ssl.SSLContext:
    """Who believes the first certificate of a file, or that of the authority which has signed it, whatever its names.

    Without one, the system's authorities, and the name has to be right.
    """
    context = ssl.create_default_context(cafile=certificate)
    if certificate:
        context.check_hostname = False
        context.verify_flags |= PARTIAL_CHAIN
        # Python 3.13 wants of every certificate what only new ones have; this one is known.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
