# The Python environments: each is one layer made from the lock's wheels.
{
  fetch,
  plugin,
  # nix/environments/lock.json as a value.
  lock,
}:
let
  wheels =
    name:
    lock.${name}
      or (throw "no environment ${name} in nix/environments/lock.json: write nix/environments/${name}.toml, then `make lock`");
in
{
  wheels = name: map fetch.wheel (wheels name);

  layer =
    name:
    plugin {
      name = "layer-environment-${name}";
      module = "environment";
      needs = [
        "layer"
        "bytecode"
        "wheel"
      ];
      arguments = {
        root = "opt/env/${name}";
        wheels = map fetch.wheel (wheels name);
        created_by = "hearmeman environment ${name}";
        level = 10;
      };
    };
}
