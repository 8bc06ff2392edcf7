"""The option that opens a host to a service, described once."""

from __future__ import annotations


class ModuleDocFragment:
    """Read by ansible-doc."""

    DOCUMENTATION = r"""
options:
  access:
    description:
      - What the service needs to be reached and to do its work. Without it nothing of that is looked after.
      - Where firewalld or ufw is active, the ports are opened to O(access.allow_from) and to nobody else. Rules that
        were made here before and that nothing needs any more are taken away; those of others stay.
      - A ruleset of nftables that is neither's is not changed; a warning tells the rules that it lacks.
      - Where SELinux is enabled, booleans, types of ports and file contexts are set for good, by C(semanage) of the
        package C(policycoreutils-python-utils). Those that nothing needs any more stay, because nobody can tell whose
        they are.
    type: dict
    suboptions:
      name:
        description: Name of what is set here, of at most 17 characters; other services must not have it.
        type: str
        required: true
      listens_on:
        description:
          - Where the service listens, as TCP port, or address and port; without a port it is V(80). What follows after
            a space is passed over, and so is C(unix:PATH).
          - A loopback address is not opened.
        type: list
        elements: str
        required: true
      allow_from:
        description:
          - Addresses, networks and names of hosts that may reach it. V(0.0.0.0/0) and V(::/0) are everybody, an empty
            list is nobody but the host itself.
          - Names are looked up on the host, where it has a firewall.
        type: list
        elements: str
        required: true
      protocols:
        description: Protocols of IP without ports that O(access.allow_from) may send, too.
        type: list
        elements: str
        choices: [vrrp]
        default: []
      firewall:
        description: V(none) leaves the firewall alone, whatever there is.
        type: str
        choices: [auto, none]
        default: auto
      booleans:
        description: Booleans of SELinux that have to be on; one that the policy does not have is passed over.
        type: list
        elements: str
        default: []
      port_type:
        description: SELinux's type of the ports that the service listens on; empty where it may listen on any.
        type: str
        default: ""
      known_ports:
        description: Ports that it may listen on in the policy as it comes.
        type: list
        elements: int
        default: []
      file_contexts:
        description: SELinux's types of files, by the pattern of their paths. Files that are there get it.
        type: dict
        default: {}
"""
