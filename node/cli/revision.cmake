# Writes OUTPUT with the revision of the source tree SOURCE_DIR; a tree without git of its own is
# "unknown", also below somebody else's repository. Run at build time, so that the program does not
# name the revision of an older configure. An unchanged file is left alone, and then nothing is
# compiled again. The tree may belong to another user, as in a container.
set(GIT git -c safe.directory=*)
set(REVISION "")
execute_process(COMMAND ${GIT} rev-parse --show-toplevel WORKING_DIRECTORY ${SOURCE_DIR}
                OUTPUT_VARIABLE TOP OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(TOP)
  file(REAL_PATH "${TOP}" TOP)
  file(REAL_PATH "${SOURCE_DIR}" SOURCE)
  if(TOP STREQUAL SOURCE)
    execute_process(COMMAND ${GIT} rev-parse --short=12 HEAD WORKING_DIRECTORY ${SOURCE_DIR}
                    OUTPUT_VARIABLE REVISION OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
endif()
if(NOT REVISION)
  set(REVISION "unknown")
endif()
configure_file(${TEMPLATE} ${OUTPUT} @ONLY)
