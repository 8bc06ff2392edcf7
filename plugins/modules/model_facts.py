#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: model_facts
short_description: Read what models are, without reading their weights
version_added: 0.1.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Reads the configuration of models, and what tensors they have from the headers of their weights.
  - A model is a directory of this host, or has an id on the hub. An id is looked up in the hub's cache on this host,
    and on the hub itself only with O(online=true).
  - Changes nothing, and keeps nothing of what it reads from the hub.
requirements:
  - The Python package C(huggingface_hub), with O(online=true) only.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  models:
    description:
      - The models to read, as in C(vllm_models); of each C(name), under which its facts are returned, C(source), an
        absolute path on this host or the id of a model on the hub, and C(revision), a branch, tag or commit on the
        hub, by default C(main). Nothing else of them matters.
      - An entry without a name or a source is passed over; M(gpuhosts.vllm.fleet_plan) says what is wrong with it.
    type: list
    elements: raw
    required: true
  only:
    description: Read the models that are a V(directory), or those that are on the V(hub); without it both.
    type: str
    choices: [directory, hub]
  required:
    description:
      - Whether it is a failure that a model is not there or cannot be read. If not, its facts are C(source) and
        C(problem), the reason. That the hub cannot be asked at all, because a package is missing, is always a failure.
    type: bool
    default: true
  hf_home:
    description:
      - The directory in which the hub's cache is, as in the environment variable E(HF_HOME) of vLLM.
      - By default what E(HF_HUB_CACHE) or E(HF_HOME) say to this module, else C(~/.cache/huggingface).
    type: path
  online:
    description: Whether the hub may be asked for a model whose weights the cache does not know.
    type: bool
    default: false
  endpoint:
    description:
      - The URL of a mirror of the hub, for O(online=true).
      - By default E(HF_ENDPOINT), else V(https://huggingface.co).
    type: str
  token:
    description:
      - The token for models that are not public, for O(online=true).
      - By default E(HF_TOKEN), or the one with which the user who runs this module has logged in.
    type: str
seealso:
  - module: gpuhosts.vllm.fleet_plan
  - module: gpuhosts.vllm.gpu_facts
"""

EXAMPLES = r"""
- name: Read a model in a directory and one in the hub's cache
  gpuhosts.vllm.model_facts:
    hf_home: /var/lib/vllm/huggingface
    models:
      - name: tiny-llama
        source: /srv/models/tiny-llama
      - name: qwen3-8b
        source: Qwen/Qwen3-8B

- name: Read the models of the inventory, on the controller and from the hub
  gpuhosts.vllm.model_facts:
    models: "{{ vllm_models }}"
    only: hub
    online: true
    token: "{{ vllm_hf_token | default(omit, true) }}"
  delegate_to: localhost
"""

RETURN = r"""
ansible_facts:
  description: What was read.
  returned: success
  type: dict
  contains:
    model_facts:
      description: The facts of every model by its name.
      type: dict
      sample:
        tiny-llama:
          source: /srv/models/tiny-llama
          revision: null
          path: /srv/models/tiny-llama
          config: {architectures: [LlamaForCausalLM], hidden_size: 256, num_hidden_layers: 4}
          generation: {temperature: 0.6}
          embeds: false
          max_seq_length: null
          tokenizer_length: 4096
          chat_template: true
          tensors:
            - {name: model.embed_tokens.weight, dtype: BF16, shape: [2048, 256], count: 1, bytes: 1048576}
            - {name: "model.layers.*.mlp.down_proj.weight", dtype: BF16, shape: [256, 688], count: 4, bytes: 1409024}
          safetensors_bytes: 7344640
          bytes_from: headers
      contains:
        source:
          description: As asked for.
          type: str
        revision:
          description: The commit that was read; null for a path.
          type: str
        path:
          description: The directory that was read; null for the hub itself.
          type: str
        config:
          description:
            - The content of C(config.json), or of C(params.json) where a model has Mistral's own format alone. What
              C(hf_quant_config.json) says of quantisation is in it, as C(quantization_config).
            - C(Infinity) and C(NaN), which JSON does not know, are strings.
          type: dict
        generation:
          description: The content of C(generation_config.json); null without one.
          type: dict
        embeds:
          description: Whether C(modules.json) has a pooling module, as sentence-transformers has them for embeddings.
          type: bool
        max_seq_length:
          description: The longest input in tokens by sentence-transformers; null where it says nothing.
          type: int
        tokenizer_length:
          description: The longest input in tokens by the tokenizer; null where it says nothing.
          type: int
        chat_template:
          description: Whether the model has a chat template.
          type: bool
        tensors:
          description:
            - The tensors of all weights, added up where only the numbers in their names differ (layers, experts).
            - Empty unless RV(ansible_facts.model_facts.bytes_from) is V(headers).
          type: list
          elements: dict
          contains:
            name:
              description: The name with C(*) for every number; C(*) alone for what had no room in a fact.
              type: str
            dtype:
              description: The type as safetensors names it.
              type: str
            shape:
              description: The shape of one of them.
              type: list
              elements: int
            count:
              description: How many there are.
              type: int
            bytes:
              description: The bytes of all of them together.
              type: int
        safetensors_bytes:
          description: The bytes of all weights; null where nothing says so.
          type: int
        bytes_from:
          description:
            - V(headers) is the sum over all tensors.
            - V(index) is what the index says, where not all of its files are there.
            - V(files) is the size of PyTorch's own weight files, of a model without safetensors.
            - V(none) means that the bytes are not known.
          type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_files import (
    HubOptions,
    ModelFilesError,
    read_models,
    sources,
)


def main() -> None:
    """Read the models."""
    module = AnsibleModule(
        argument_spec={
            "models": {"type": "list", "elements": "raw", "required": True},
            "only": {"type": "str", "choices": ["directory", "hub"]},
            "required": {"type": "bool", "default": True},
            "hf_home": {"type": "path"},
            "online": {"type": "bool", "default": False},
            "endpoint": {"type": "str"},
            "token": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    hub = HubOptions(*(module.params[name] for name in ("hf_home", "online", "endpoint", "token")))
    models = sources(module.params["models"], module.params["only"])
    try:
        facts = read_models(models, hub, required=module.params["required"])
    except ModelFilesError as error:
        module.fail_json(msg=str(error))
    module.exit_json(ansible_facts={"model_facts": facts})


if __name__ == "__main__":
    main()
