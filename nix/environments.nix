# The Python environments: each is a layer made from the lock's files; what the GPU environments share is the base.
{
  fetch,
  plugin,
  # nix/environments/lock.json as a value.
  lock,
}:
let
  lib = import ./lib.nix;

  inherit (builtins)
    all
    attrNames
    concatMap
    elem
    elemAt
    filter
    fromTOML
    listToAttrs
    match
    readFile
    sort
    ;

  # The environments that see the base.
  members = (fromTOML (readFile ./environments/base.toml)).tool.hearmeman.members;

  # Layers of the base. Clients pull a few at once, so several of like size arrive sooner than one.
  baseLayers = 5;

  entries =
    name:
    lock.${name}
      or (throw (
        "no environment ${name} in nix/environments/lock.json: write nix/environments/${name}.toml, "
        + "then `make lock`"
      ));

  # The same file in every member: not the same version only.
  base = filter (entry: all (member: elem entry (entries member)) members) (entries (elemAt members 0));

  delta = name: filter (entry: !(elem entry base)) (entries name);

  isWheel = entry: match ".*\\.whl" entry.file != null;

  wheel =
    entry:
    if isWheel entry then
      fetch.wheel entry
    else
      plugin {
        name = "wheel-${entry.name}-${entry.version}";
        module = "sdist";
        arguments = {
          source = fetch.sdist entry;
          backends = map fetch.wheel (entries "build");
        };
      };

  byName = sort (a: b: a.name < b.name);

  layer =
    {
      name,
      root,
      own,
      below ? [ ],
      isBase ? false,
    }:
    plugin {
      name = "layer-environment-${name}";
      module = "environment";
      needs = [
        "layer"
        "ahead"
        "bytecode"
        "wheel"
        "inflate"
      ];
      libraries = map fetch.wheel (entries "tools");
      arguments = {
        inherit root;
        is_base = isBase;
        base = if below == [ ] then "" else "opt/env/base";
        wheels = map wheel (byName own);
        base_wheels = map wheel (byName below);
        created_by = "hearmeman environment ${name}";
        # `make demo` waits for this one: a quarter of the time for a tenth more bytes.
      level = if name == "voice" then 3 else 10;
      };
    };
in
{
  inherit members;

  # The wheels that are built here, since their packages publish none; each once.
  built = listToAttrs (
    concatMap (
      name:
      map (entry: {
        name = "wheel-${entry.name}";
        value = wheel entry;
      }) (filter (entry: !(isWheel entry)) (entries name))
    ) (attrNames lock)
  );

  # Every file of an environment, for lists of what is in an image.
  inherit entries;

  # Lowest first: the base's layers, if one of `names` needs it, then one for each name.
  layers =
    names:
    (
      if filter (name: elem name members) names == [ ] then
        [ ]
      else
        map (
          bin:
          layer {
            name = "base-${toString (bin.index + 1)}";
            root = "opt/env/base";
            own = bin.entries;
            isBase = true;
          }
        ) (lib.spread baseLayers base)
    )
    ++ map (
      name:
      let
        sees = elem name members;
      in
      layer {
        inherit name;
        root = "opt/env/${name}";
        own = if sees then delta name else entries name;
        below = if sees then base else [ ];
      }
    ) names;
}
