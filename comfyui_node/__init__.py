"""Shows hearmeman's workflows among the templates of ComfyUI's own page; brings no node class."""

NODE_CLASS_MAPPINGS: dict[str, type] = {}
WEB_DIRECTORY = "./web"
