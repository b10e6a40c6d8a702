# Writes OUTPUT with the revision of the source tree SOURCE_DIR; a tree without git is "unknown". Run at
# build time, so that the program does not name the revision of an older configure. An unchanged file
# is left alone, and then nothing is compiled again.
execute_process(COMMAND git rev-parse --short=12 HEAD WORKING_DIRECTORY ${SOURCE_DIR}
                OUTPUT_VARIABLE REVISION OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT REVISION)
  set(REVISION "unknown")
endif()
configure_file(${TEMPLATE} ${OUTPUT} @ONLY)
