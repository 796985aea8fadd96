"""One variant of each mechanism, an implementation being but a word of the config; and one of each hybrid."""

from zoo.attention.catalog import attention_names, variant

_BY_KIND: dict[str, str] = {}
for _name in attention_names():
    _used = variant(_name).variants()
    if not any(each.capabilities.refusal for each in _used):
        _BY_KIND.setdefault(_used[0].mechanism if len(_used) == 1 else _name, _name)
ONE_OF_EACH = list(_BY_KIND.values())
