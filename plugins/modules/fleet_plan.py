#!/usr/bin/python
# What ansible-doc shows of the action of this name, which does the work on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_plan
short_description: Decide which instance of which model runs on which GPUs of which host
version_added: 0.1.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Turns the wishes in O(models) and the GPUs of O(hosts) into the fleet plan, the only thing that the roles act upon.
  - Runs on the controller; contacts no host and changes nothing.
  - Equal input gives an equal plan. An instance that runs stays on its host, GPUs and port as long as these are valid
    and the other models have room beside it. What has to give way is in RV(plan.changes). A GPU belongs to at most one
    instance.
  - Fails with every mistake in the wishes at once, and when the hosts do not have what the wishes need.
  - Without O(hosts) and O(described_hosts) only the wishes are validated.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  models:
    description:
      - The wishes, as C(vllm_models) in the inventory. C(name) and C(source) are required, everything else is optional.
      - C(name) (str) is the served name, C(source) (str) a model of the hub or an absolute path on the GPU hosts,
        C(revision) (str) the revision on the hub.
      - C(replicas) is a number of instances, or V(auto) for as many as fit.
      - C(parallelism) is a mapping of C(tensor) (int), C(pipeline) (int) and C(expert) (bool), or V(auto) for
        what C(objective) asks for.
      - C(objective) is V(throughput), the most tokens/s for each GPU, which are mostly the fewest GPUs that hold the
        model; V(latency), the most tokens/s of one request; or V(balanced), the most of both. Speeds are predicted; see
        C(docs/sizing.md).
      - A model that fits no host gets a pipeline over alike hosts (GPU type, link and driver branch, numbers of GPUs).
        So does a C(parallelism) of more GPUs than one host has. C(tensor) stays inside one domain of one host, unless
        it is stated and no host has the GPUs; then it goes over hosts, with a warning.
      - C(context_length) (tokens) is what an instance must have memory for, V(auto) the model's own length or, if less
        fits, that. C(concurrency) (requests) is how many of them must fit at once, and the most that are let in.
      - C(gpu_memory_utilization) (above 0, up to 1) and C(kv_cache_dtype) are passed on to vLLM; V(auto) is 0.92, and
        the model's type.
      - C(port) (int) is where the instances of this model begin to count up on every host; without it they share the
        ports from O(base_port) on.
      - C(hosts) is a group, a host, or a list of these, that the model is restricted to.
      - C(executor) is what joins the hosts of an instance, V(mp) or V(ray); V(auto) is V(mp).
      - C(runtime) is V(systemd) or V(docker), C(lora) is empty; there is nothing else in this version.
      - C(extra_args) is a mapping of options of C(vllm serve), checked against the release in O(vllm_version),
        except those that the plan sets itself.
      - C(tracing) (from 0 to 1) is the part of the requests that its engines trace; O(traces_endpoint) is where to.
      - C(env) is a mapping of environment variables for the engines.
    type: list
    elements: raw
    required: true
  hosts:
    description: The GPU hosts, as the filter P(gpuhosts.vllm.fleet_hosts#filter) returns them.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name in the inventory.
        type: str
        required: true
      address:
        description: Address by which the other hosts reach it, and on which the engines listen.
        type: str
        required: true
      cluster_address:
        description: Address by which the other nodes of its instances reach it. Empty means the same one.
        type: str
        default: ""
      gpu_facts:
        description: What M(gpuhosts.vllm.gpu_facts) returned for it.
        type: dict
        required: true
      model_facts:
        description: What M(gpuhosts.vllm.model_facts) returned there. Of several hosts the first that could read a
          model counts.
        type: dict
        default: {}
      instances:
        description: Instances that run there now.
        type: list
        elements: dict
        default: []
        suboptions:
          id:
            description: Name of the instance.
            type: str
            required: true
          model:
            description: Name of its model.
            type: str
            required: true
          gpus:
            description: Its GPUs on this host, each a mapping of C(index) and C(uuid). Earlier releases wrote indices
              only; these are read as well.
            type: list
            elements: raw
            required: true
          port:
            description: TCP port of its endpoint.
            type: int
            required: true
          rank:
            description: Rank of the node, of an instance that spans hosts.
            type: int
            default: 0
          master_port:
            description: TCP port where the nodes of an instance that spans hosts meet.
            type: int
          tensor:
            description: Tensor-parallel size of the instance.
            type: int
          context_length:
            description: Tokens that a request to it may have, where it was started with a length.
            type: int
  described_hosts:
    description:
      - GPU hosts that are only described, to plan for instead of O(hosts); of those only what they have read of models
        counts then. Each is a mapping of C(name), C(gpus), as in
        V(8 x H100 80GB HBM3, NVLink), and optionally C(address). Several types are joined by C(+).
      - Without a link in the text it is the one that the type of GPU usually has.
    type: list
    elements: raw
  groups:
    description: Groups of the inventory with the names of their hosts, for C(hosts) of a model.
    type: dict
    default: {}
  vllm_version:
    description:
      - Version of vLLM that is going to run, whose options C(extra_args) are checked against, and whose account of
        memory is planned with. Without it, that which the role vllm installs by default.
    type: str
  model_facts:
    description:
      - What M(gpuhosts.vllm.model_facts) returned for the models, by their names. It counts before what O(hosts) have
        read. A model without is refused unless its C(parallelism) is stated; then it is not sized, and a warning says
        so.
    type: dict
    default: {}
  calibration:
    description:
      - A file on the machine that plans, a copy of C(reports/effective.json) of an earlier roll-out (see
        M(gpuhosts.vllm.fleet_compare)). What its engines had for their KV cache takes the place of what the planner
        predicts, and its margin of error is 150 MiB then.
      - A measurement counts only where model, options, version of vLLM, GPU, driver branch, shape and context length
        are as they were, and only on a first boot, which compiles and has the least (on any, where all boots are
        alike). Of another boot or context it can lower the prediction, never raise it.
      - Engines that are pinned, or run on vLLM's CPU build, and pipelines, measure nothing.
    type: path
  engine_environment:
    description:
      - What the role vllm puts into the environment of all engines, its variable C(vllm_environment). A measurement
        under another one does not count.
      - Names of secrets (C(HF_TOKEN), C(*_API_KEY), ...) are refused here and in C(env) of a model, because the files
        are readable; each has a variable of the role vllm.
    type: dict
    default: {}
  traces_endpoint:
    description:
      - Where the engines of models with C(tracing) send their spans by OTLP, V(http://HOST:4317) over gRPC or
        V(https://HOST:4318/v1/traces) over HTTP.
    type: str
    default: ""
  pin_kv_cache:
    description:
      - Whether engines are told the size of their KV cache, C(kv-cache-memory-bytes), where the memory account is
        known. It is the prediction for the first boot less the margin of error, so that every boot grants exactly the
        planned tokens.
      - Without it they take what C(gpu-memory-utilization) leaves, which differs between the first boot and later
        ones.
      - Has no effect on vLLM's CPU build.
    type: bool
    default: true
  base_port:
    description: First port of the instances of models without a C(port).
    type: int
    default: 8000
"""

EXAMPLES = r"""
- name: Are the wishes sound
  gpuhosts.vllm.fleet_plan:
    models: "{{ vllm_models }}"
    groups: "{{ groups }}"

- name: Plan the fleet
  gpuhosts.vllm.fleet_plan:
    models: "{{ vllm_models }}"
    hosts: "{{ groups.gpu_hosts | gpuhosts.vllm.fleet_hosts(hostvars) }}"
    groups: "{{ groups }}"
    vllm_version: 0.33.0
  register: fleet

- name: What would run on two machines that nobody has bought yet
  gpuhosts.vllm.fleet_plan:
    models: "{{ vllm_models }}"
    described_hosts:
      - {name: gpu1, gpus: "8 x H100 80GB HBM3, NVLink"}
      - {name: gpu2, gpus: "2 x RTX 4090 + 1 x L4"}

- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ fleet.table.splitlines() }}"
"""

RETURN = r"""
plan:
  description: The fleet plan.
  returned: success, when there are hosts
  type: dict
  contains:
    version:
      description: Version of the schema.
      type: int
      sample: 2
    instances:
      description:
        - Every instance with C(id), C(model), C(task), C(runtime), C(executor), C(parallelism), C(endpoint),
          C(rendezvous_port), C(nodes), C(engine_args), C(env), C(budget) (GiB per GPU) and C(why).
        - This is intent. What a node really starts, with devices, addresses and ranks, makes
          P(gpuhosts.vllm.launches_on#filter) of it.
      type: list
      elements: dict
    rollout:
      description: Waves of hosts that may be changed together without leaving a model without a server.
      type: list
      elements: list
    changes:
      description: What happens to instances that run now, each with C(instance), C(model), C(action), C(reason) and
        C(last) (its model has no instance after it).
      type: list
      elements: dict
    rejected:
      description: Shapes that were considered and do not fit.
      type: list
      elements: dict
    warnings:
      description: What an operator should know, although the plan stands.
      type: list
      elements: str
hosts:
  description: The hosts that it was made for, with C(name), C(address), C(gpu_facts) and C(instances).
  returned: success, when there are hosts
  type: list
  elements: dict
table:
  description: The plan for people, one line per node of an instance, at most 100 columns wide.
  returned: success, when there are hosts
  type: str
problems:
  description: Every mistake in the wishes, one line each; where it is, what is wrong, what to do.
  returned: failure, when any wish is wrong
  type: list
  elements: str
rejected:
  description: What does not fit the hosts, with C(model), C(shape), C(reason), C(needed_gib), C(available_gib),
    C(nearest_fit) and C(knob).
  returned: failure, when the hosts do not have what is needed
  type: list
  elements: dict
"""
