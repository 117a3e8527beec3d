# Models baked into an image: one layer for each file, from the locked files of a catalogue.
{
  pkgs,
  layer,
}:
let
  inherit (builtins)
    attrNames
    baseNameOf
    concatMap
    concatStringsSep
    dirOf
    elem
    filter
    fromJSON
    fromTOML
    listToAttrs
    map
    match
    pathExists
    readFile
    replaceStrings
    ;

  byId =
    entries:
    listToAttrs (
      map (entry: {
        name = entry.id;
        value = entry;
      }) entries
    );

  # Beside a catalogue lies what `hearmeman models lock` found.
  lockPath = catalogue: dirOf catalogue + "/catalogue.lock.json";

  lockOf =
    catalogue: if pathExists (lockPath catalogue) then fromJSON (readFile (lockPath catalogue)) else { };

  withLock =
    lock: file:
    let
      found = lock.files.${file.id} or { };
      isGiven = name: found.${name} or null != null;
      given =
        names:
        listToAttrs (
          map (name: {
            inherit name;
            value = found.${name};
          }) (filter isGiven names)
        );
    in
    file
    // given [
      "size"
      "sha256"
    ]
    // {
      source = file.source // (if found.revision or "" == "" then { } else { inherit (found) revision; });
    };

  # The hash pins the bytes; a branch in place of a revision can only make the fetch fail.
  locked = file: match "[0-9a-f]{64}" (file.sha256 or "") != null;

  # `@` and others are not allowed in a store name.
  storeName = file: replaceStrings [ "@" "%" "~" " " ] [ "_" "_" "_" "_" ] (baseNameOf file.to);

  fetched =
    file:
    if !(locked file) then
      throw (
        "file ${file.id} cannot be baked: neither the catalogue nor its lock has its sha256; "
        + "run `make lock-models` where its source can be reached"
      )
    else
      pkgs.fetchurl {
        name = storeName file;
        inherit (file) sha256;
        urls =
          if file.source.kind == "huggingface" then
            let
              inherit (file.source) repo path;
            in
            [ "https://huggingface.co/${repo}/resolve/${file.source.revision or "main"}/${path}" ]
          else
            # Behind a login or a redirect: our own fetcher puts it into the store, see
            # `hearmeman_build prefetch --bake`.
            [ "file:///not-in-the-store/run-hearmeman_build-prefetch-with-bake-first/${storeName file}" ];
      };
in
{
  # The lock as a file of the image.
  lockTree =
    catalogue:
    if pathExists (lockPath catalogue) then
      [
        {
          source = lockPath catalogue;
          target = "opt/hearmeman/catalogue.lock.json";
        }
      ]
    else
      [ ];

  # The files of some models, each once, in the catalogue's order.
  files =
    catalogue: ids:
    let
      content = fromTOML (readFile catalogue);
      models = byId (content.model or [ ]);
      wanted = concatMap (
        id:
        (models.${id}
          or (throw "no model ${id} in ${toString catalogue}: it has ${concatStringsSep ", " (attrNames models)}")
        ).files
      ) ids;
    in
    map (withLock (lockOf catalogue)) (filter (file: elem file.id wanted) (content.file or [ ]));

  layerOf =
    file:
    layer {
      name = "model-${file.id}";
      trees = [
        {
          source = fetched file;
          target = "opt/models/${file.to}";
        }
      ];
      # Weights do not compress; a higher level costs minutes for nothing.
      level = 1;
    };
}
