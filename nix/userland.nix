# The Debian tree: one layer for each group of packages in the lock.
{
  fetch,
  plugin,
  # nix/userland/lock.json as a value.
  lock,
}:
let
  entry =
    name:
    lock.packages.${name}
      or (throw "package ${name} is in a group but not among the packages of nix/userland/lock.json: run `make lock`");
in
{
  # A group's .debs, fetched, with their package names.
  debs =
    group:
    map
      (name: {
        package = name;
        file = fetch.deb lock.snapshot (entry name);
      })
      (lock.groups.${group} or (throw "no group ${group} in nix/userland/lock.json: add it to packages.txt, then `make lock`"));

  layer =
    debs: group:
    plugin {
      name = "layer-userland-${group}";
      module = "userland";
      needs = [
        "layer"
        "bytecode"
        "debs"
        "fixups"
      ];
      arguments = {
        inherit debs;
        created_by = "hearmeman userland ${group}";
        level = 10;
      };
    };
}
