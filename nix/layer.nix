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
  # Whether Python is compiled: bytecode is most of a small package, and saves a fraction of a second at its start.
  compiled ? true,
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
  }
  // (if compiled then { } else { inherit compiled; });
}
