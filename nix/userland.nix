# The Debian tree: each layer holds some of the lock's groups, and what they change in the layers below.
{
  fetch,
  plugin,
  # nix/userland/lock.json as a value.
  lock,
}:
let
  inherit (builtins)
    concatLists
    concatMap
    concatStringsSep
    elemAt
    genList
    length
    ;

  entry =
    name:
    lock.packages.${name}
      or (throw "package ${name} is in a group but not among the packages of nix/userland/lock.json: run `make lock`");

  # A group's .debs, fetched, with their package names.
  debs =
    group:
    map
      (name: {
        package = name;
        file = fetch.deb lock.snapshot (entry name);
      })
      (lock.groups.${group} or (throw (
        "no group ${group} in nix/userland/lock.json: add it to packages.txt, " + "then `make lock`"
      )));

  layer =
    groups: below:
    plugin {
      name = "layer-userland-${concatStringsSep "-" groups}";
      module = "userland";
      needs = [
        "layer"
        "ahead"
        "bytecode"
        "debs"
        "fixups"
        "dpkg"
        "ldcache"
      ];
      arguments = {
        debs = concatMap debs groups;
        below = concatMap debs below;
        created_by = "hearmeman userland ${concatStringsSep " " groups}";
        level = 10;
      };
    };
in
{
  inherit debs entry;

  # Lowest first; `stack` is a list of lists of groups.
  layers =
    stack:
    genList (
      at: layer (elemAt stack at) (concatLists (genList (elemAt stack) at))
    ) (length stack);
}
