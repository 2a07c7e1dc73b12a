# Completion of zfs2s3 for bash. Commands and options come from its --help, snapshots from zfs, and what is stored from its list.

_zfs2s3_snapshots() {   # of this host that begin with $1: first the dataset, then its snapshots, since a pool may have thousands
  case $1 in
    *[@#]*) zfs list -H -d 1 -t snapshot,bookmark -o name "${1%%[@#]*}" ;;
    *) zfs list -H -t filesystem,volume -o name | sed 's/$/@/' ;;
  esac 2> /dev/null
}

_zfs2s3() {
  # bash splits words at @ and =, so the words are taken from the line
  local line=${COMP_LINE:0:COMP_POINT} cur usage command found="" option="" n=0 i word
  cur=${line##*[[:space:]]}
  local -a words
  read -ra words <<< "${line%"$cur"}"
  command=${words[1]:-}
  COMPREPLY=()
  if [ -z "$command" ]; then
    found="$(zfs2s3 --help 2> /dev/null | sed -n '/^Commands:/,$s/^  \([a-z_][a-z_]*\) .*/\1/p')"$'\n'--help$'\n'--version
  else
    usage=$(zfs2s3 "$command" --help 2> /dev/null) || return 0
    # the option whose argument is to be completed, or else how many arguments precede
    for ((i = 2; i < ${#words[@]}; i++)); do
      word=${words[i]}
      case $word in
        # only an option goes into a script of sed
        --*[!a-z-]*) ;;
        --*) word=$(sed -n "s/^  -\(.\), $word\( .*\)\{0,1\}$/-\1/p" <<< "$usage") ;;&
        -*) [[ $usage != *"[$word <"* ]] || { option=$word; ((i++)); [ $i -eq ${#words[@]} ] || option=""; } ;;
        *) ((n++)) ;;
      esac
    done
    case $command/$option/$n/$cur in
      */-i/*) case $command in upload) found=$(_zfs2s3_snapshots "$cur") ;; *) found=$(zfs2s3 list -H -o base 2> /dev/null | grep -v '^-$') ;; esac ;;
      list/-[osS]/*) found=$(printf '%s\n' snapshot guid base base_guid copy size chain restore class stored age begun state filter readable verified) ;;
      */-t/*) found=$'bulk\nstandard\nexpedited' ;;
      */-?/*) ;;
      *//*/-*) found=$(sed -n 's/^  \(-.\), \(--[a-z-]*\).*/\1\n\2/p; s/^  \(--[a-z-]*\).*/\1/p' <<< "$usage") ;;
      upload//0/*) found=$(_zfs2s3_snapshots "$cur" | grep -v '#') ;;
      restore//1/* | thaw//1/* | check//*) found=$(zfs list -H -t filesystem,volume -o name 2> /dev/null) ;;
      list//0/*) found=$(zfs2s3 list -H -o snapshot 2> /dev/null | sed 's/@.*//') ;;
      verify//* | remove//0/* | keep//0/* | unkeep//0/* | restore//0/* | download//0/* | thaw//0/*)
        found=$(zfs2s3 list -H -o snapshot 2> /dev/null) ;;
    esac
  fi
  while read -r word; do
    [[ $word != "$cur"* || -z $word ]] || COMPREPLY+=("$word")
  done < <(sort -u <<< "$found")
  [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *@ ]] || compopt -o nospace
  # bash replaces only what follows the last of its own word breaks
  local kept=${cur%"${cur##*[@=:]}"}
  [[ $COMP_WORDBREAKS != *@* || -z $kept ]] || COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}

complete -F _zfs2s3 zfs2s3
