"""A stand-in for vLLM where the engine is not what is tested: front door, roll-outs, faults, observability, scale.

It starts in a tenth of a second and needs 15 MB, not 3 GB. Its command line, endpoints, metrics and shutdown are those
of vLLM; tests/stand_in/contract.py says what that means, and runs against both. What vLLM has not:

- environment variables, for a whole engine: STAND_IN_START_SECONDS (until it listens), STAND_IN_START_FAULT=oom (of
  that it dies while it loads), STAND_IN_TOKEN_SECONDS (between two tokens), STAND_IN_KV_TOKENS (what it says to have);
- STAND_IN_FAULT=NAME in its environment: a fault from its start on, NAME is one of server.FAULTS;
- POST /stand_in/fault {"fault": NAME}, from then on; NAME is one of server.FAULTS, or empty for none;
- a field ``stand_in`` in a request, which vLLM would pass over: {"token_seconds": 0.3, "busy": [PORT, ...]}. The server
  listening on one of these ports answers 503, as with a full queue; the others tell in the answer's field ``stand_in``
  who they are and what has arrived.

Only the standard library, so that any host can run it; ``--config`` needs PyYAML, as in vLLM.
"""
