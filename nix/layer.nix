# A layer made of source trees, texts and links.
{ plugin }:
{
  # Short name; the layer is `layer-${name}`.
  name,
  # [{ source, target }]: a path in the store and where its files go, without a leading slash.
  trees ? [ ],
  # { target = content; }; content that begins with #! becomes executable.
  texts ? { },
  # { target = to; }
  links ? { },
  # zstd's.
  level ? 10,
}:
plugin {
  name = "layer-${name}";
  module = "tree";
  needs = [
    "layer"
    "ahead"
    "bytecode"
  ];
  arguments = {
    inherit
      trees
      texts
      links
      level
      ;
    created_by = "hearmeman ${name}";
  };
}
