# Run by CTest: the revision is that of the tree itself, not of a repository around it.
set(TREE ${WORK_DIR}/revision_test)
file(REMOVE_RECURSE ${TREE})
file(MAKE_DIRECTORY ${TREE}/unpacked)
foreach(step "init;-q" "-c;user.name=t;-c;user.email=t@t;commit;-q;--allow-empty;-m;x")
  execute_process(COMMAND git ${step} WORKING_DIRECTORY ${TREE} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
execute_process(COMMAND git rev-parse --short=12 HEAD WORKING_DIRECTORY ${TREE}
                OUTPUT_VARIABLE HEAD OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)

function(expect_revision source wanted)
  execute_process(COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${source} -DTEMPLATE=${TEMPLATE}
                          -DOUTPUT=${WORK_DIR}/revision_test.cc -P ${SCRIPT}
                  COMMAND_ERROR_IS_FATAL ANY)
  file(READ ${WORK_DIR}/revision_test.cc text)
  if(NOT text MATCHES "\"${wanted}\"")
    message(FATAL_ERROR "${source}: expected ${wanted} in ${text}")
  endif()
endfunction()
expect_revision(${TREE} "${HEAD}")
expect_revision(${TREE}/unpacked unknown)
